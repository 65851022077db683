"""DICOM files below a folder that a person names on the command line."""

from __future__ import annotations

import logging
from pathlib import Path

from dicomnode.errors import Refused

log = logging.getLogger(__name__)


def find_dicom(path: Path) -> list[Path]:
    """Every DICOM file at or below the path, as `sort_files` finds them; the others are left out with a warning."""
    found, others = sort_files(path)
    if others:
        log.warning("%s: %d files are not DICOM and are left out", path, others)
    return found


def sort_files(path: Path) -> tuple[list[Path], int]:
    """Every DICOM file (PS3.10 7.1: `DICM` after 128 bytes) at or below the path, sorted, and the number of others.

    A DICOMDIR is none. Raises Refused, naming the path, where there is no DICOM file.
    """
    if not path.exists():
        raise Refused(f"{path}: no such file or folder")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise Refused(f"{path}: the folder is empty")
    found = [file for file in files if file.name != "DICOMDIR" and _is_dicom(file)]
    if not found:
        raise Refused(
            f"{path}: " + ("not a DICOM file" if path.is_file() else f"no DICOM file among {len(files)} files")
        )
    return found, len(files) - len(found)


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"

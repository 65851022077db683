"""A release as TotalSegmentator's are: one folder of nnU-Net v2 in a zip, with what else training leaves there."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

from models.releases import RELEASES, Release
from tests.nnunet_folders import in_first_form, write_folder

TRAINED = "Dataset901_Tiny/nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
BESIDE = ("dataset_fingerprint.json", "fold_0/debug.json", "fold_0/progress.png")
APPLE = f"__MACOSX/{TRAINED}/._plans.json"


def write_archive(path: Path) -> Path:
    """Write a small archive in that layout, its plans in the form that TotalSegmentator's have."""
    with TemporaryDirectory() as scratch, ZipFile(path, "w", ZIP_DEFLATED) as archive:
        write_folder(Path(scratch) / TRAINED, edit=in_first_form)
        for file in sorted(Path(scratch).rglob("*")):
            archive.write(file, file.relative_to(scratch))
        for name in (*(f"{TRAINED}/{beside}" for beside in BESIDE), APPLE):
            archive.writestr(name, "not read")
    return path


def release(archive: Path, url: str = "http://models.invalid/model.zip") -> Release:
    """The release `totalsegmentator`, but for the archive itself."""
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return replace(RELEASES["totalsegmentator"], url=url, size=len(content), sha256=digest)

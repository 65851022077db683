"""What a zip archive holds of a trained nnU-Net v2 folder, written to disk."""

from __future__ import annotations

import re
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from models.bundle import BadBundle, blaming

_FILES = ("plans.json", "dataset.json")
_CHECKPOINT = re.compile(r"fold_(\d+|all)/checkpoint_final\.pth")
_MOST_PACKED = 10
"""How much smaller than its content an archive may be: weights hardly get smaller at all."""


def unpack(archive: Path, folder: Path) -> None:
    """Write plans.json, dataset.json and fold_*/checkpoint_final.pth of the one trained network in an archive.

    Nothing else is written, and nothing anywhere but under these names in the folder, whatever paths the archive gives.
    Raises BadBundle, naming the archive, also where the disk has no room.
    """
    with blaming(archive):
        try:
            with ZipFile(archive) as content:
                wanted = _find(content)
                size = sum(member.file_size for member in wanted.values())
                if size > _MOST_PACKED * archive.stat().st_size:
                    raise ValueError(f"would unpack to {size:,} bytes, too many for weights")
                ensure_room(folder.parent, size)
                for name, member in wanted.items():
                    target = folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with content.open(member) as source, target.open("wb") as stream:
                        shutil.copyfileobj(source, stream)
        except (BadZipFile, zlib.error) as error:
            raise ValueError(f"not a whole zip archive: {error}") from None


def ensure_room(folder: Path, size: int) -> None:
    """Raises BadBundle where the disk of the folder has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise BadBundle(f"{folder}: {size / 1e6:,.0f} MB are needed on this disk, {free / 1e6:,.0f} MB are free")


def _find(content: ZipFile) -> dict[str, ZipInfo]:
    """The files of the trained network by the names that they get; raises ValueError where there is not one network."""
    members = {PurePosixPath(member.filename): member for member in content.infolist() if not member.is_dir()}
    found = [
        dict(_files_of(root, members)) for root in sorted(path.parent for path in members if path.name == _FILES[0])
    ]
    whole = [files for files in found if files.keys() > set(_FILES)]
    if len(whole) != 1:
        names = ", ".join(_FILES)
        raise ValueError(f"{len(whole)} folders with {names} and fold_*/checkpoint_final.pth in it; one is needed")
    for name, member in whole[0].items():
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{name} is a link")
    return whole[0]


def _files_of(root: PurePosixPath, members: dict[PurePosixPath, ZipInfo]) -> Iterator[tuple[str, ZipInfo]]:
    for path, member in members.items():
        if path.is_relative_to(root):
            name = path.relative_to(root).as_posix()
            if name in _FILES or _CHECKPOINT.fullmatch(name):
                yield name, member

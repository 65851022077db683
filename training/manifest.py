"""The record of what a run learnt from: every file with its hash, its example, its patient, its part of the split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from training.examples import Example


@dataclass(frozen=True)
class Record:
    """One file. path: relative to the data folder, with slashes. split: what it is for, such as "training"."""

    path: str
    size: int
    modified_ns: int
    sha256: str
    layout: str
    example: str
    patient: str
    split: str


def make_manifest(folder: Path, splits: Mapping[str, Sequence[Example]]) -> list[Record]:
    """Hash every file of the examples of each part of a split.

    folder: holds them all. Patients are what the examples say, digests where they come from DICOM; names of folders and
    files are as they are. Raises ValueError where a patient is in two parts, or a file lies outside the folder.
    """
    records = [
        _record(folder, path, example, split)
        for split, examples in splits.items()
        for example in examples
        for path in example.files
    ]
    _check_patients(records)
    return records


def _record(folder: Path, path: Path, example: Example, split: str) -> Record:
    if not path.is_relative_to(folder):
        raise ValueError(f"{path}: not in {folder}")
    status = path.stat()
    return Record(
        path=path.relative_to(folder).as_posix(),
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        sha256=_hash(path),
        layout=example.layout,
        example=example.name,
        patient=example.patient,
        split=split,
    )


def write_manifest(path: Path, records: Sequence[Record]) -> None:
    """Write as JSON, a line for each file."""
    lines = ",\n".join(f"  {json.dumps(asdict(record), ensure_ascii=False)}" for record in records)
    path.write_text(f'{{"files": [\n{lines}\n]}}\n', encoding="utf-8")


def read_manifest(path: Path) -> list[Record]:
    """Read a manifest; ValueError, naming it, where it is none, or the same patient is in two parts of the split."""
    types = {"str": str, "int": int}
    try:
        records = [Record(**record) for record in json.loads(path.read_text(encoding="utf-8"))["files"]]
        wrong = [
            part.name
            for record in records
            for part in fields(Record)
            if not isinstance(getattr(record, part.name), types[str(part.type)])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a manifest") from error
    if wrong:
        raise ValueError(f"{path}: not a manifest: {wrong[0]} of the wrong type")
    _check_patients(records)
    return records


def verify_manifest(folder: Path, records: Sequence[Record], full: bool = False) -> None:
    """Raise ValueError, naming the file, unless all are as they were, by size and time of change, or fully by hash."""
    for record in records:
        path = folder / record.path
        if not path.is_file():
            raise ValueError(f"{path}: in the manifest, but not there")
        status = path.stat()
        same = status.st_size == record.size
        same &= _hash(path) == record.sha256 if full else status.st_mtime_ns == record.modified_ns
        if not same:
            raise ValueError(f"{path}: changed since the manifest was written")


def _check_patients(records: Sequence[Record]) -> None:
    split_of: dict[str, Record] = {}
    for record in records:
        other = split_of.setdefault(record.patient, record)
        if other.split != record.split:
            places = f"{other.split} ({other.path}) and {record.split} ({record.path})"
            raise ValueError(f"patient {record.patient} is in two parts of the split: {places}")


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""A backup while the node runs: the database, an index of the archive, and the files themselves where asked for."""

from __future__ import annotations

import csv
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from dicomnode.archive import Archive, digest
from dicomnode.database import Database, open_database
from dicomnode.errors import Refused, Unavailable
from dicomnode.store import inventory
from dicomnode.store.inventory import IndexedFile

DATABASE = "node.db"
ARCHIVE = "archive"
MANIFEST = "manifest.csv"


class FileMode(StrEnum):
    """What becomes of the files of the archive."""

    NONE = "none"
    LINK = "link"
    COPY = "copy"


@dataclass
class Content:
    """What a backup holds. missing: has a row and is not there; damaged: was copied, but is not what its row says."""

    files: int = 0
    size_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def back_up(database: Database, archive: Archive, target: Path, mode: FileMode, now: datetime) -> tuple[Path, Content]:
    """Write `node-TIME` into the target folder: whole and verified, or not at all; never over another one.

    It holds `node.db`, `manifest.csv` (path, size_bytes, sha256 of every file that the database names) and, unless mode
    is NONE, `archive`: a node whose archive.path is that folder finds both. Raises Refused for another database than
    SQLite and where the name is taken; Unavailable where it cannot be written, or links lead to another file system.
    """
    final = target / f"node-{now:%Y%m%dT%H%M%SZ}"
    partial = target / f".{uuid.uuid4().hex}.part"
    if final.exists():
        raise Refused(f"{final} is there already")
    try:
        partial.mkdir(mode=0o700, parents=True)
        content = _write(database, archive, partial, mode, now)
        partial.rename(final)
        _sync(target)
    except OSError as error:
        raise Unavailable(f"{target}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final, content


def _write(database: Database, archive: Archive, partial: Path, mode: FileMode, now: datetime) -> Content:
    before = _count(database)
    database.copy_to(partial / DATABASE)
    after = _count(database)
    with _opened(partial / DATABASE) as copy:
        _verify(copy, before, after)
        content = _write_files(copy, archive, partial, mode)
        _forget_removed(content, database, copy, now)
    for path in (partial / DATABASE, partial / MANIFEST, partial):
        _sync(path)
    return content


def _write_files(copy: Database, archive: Archive, partial: Path, mode: FileMode) -> Content:
    content = Content()
    with copy.read() as connection, (partial / MANIFEST).open("x", encoding="utf-8", newline="") as stream:
        manifest = csv.writer(stream)
        manifest.writerow(["path", "size_bytes", "sha256"])
        for file in inventory.files(connection):
            try:
                size = archive.path(file.path).stat().st_size
                if mode is not FileMode.NONE:
                    _put(file, archive, partial / ARCHIVE, mode, content)
            except FileNotFoundError:
                content.missing.append(file.path)
                continue
            manifest.writerow([file.path, size, file.sha256])
            content.files += 1
            content.size_bytes += size
    return content


def _put(file: IndexedFile, archive: Archive, folder: Path, mode: FileMode, content: Content) -> None:
    """Link or copy a file. A link costs nothing and is safe: the node never changes a file, it replaces it."""
    source, place = archive.path(file.path), folder / file.path
    place.parent.mkdir(parents=True, exist_ok=True)
    if mode is FileMode.LINK:
        place.hardlink_to(source)
        return
    blob = source.read_bytes()
    with place.open("xb") as stream:
        stream.write(blob)
        stream.flush()
        os.fsync(stream.fileno())
    if digest(file.path, blob) != file.sha256:
        content.damaged.append(file.path)


def _forget_removed(content: Content, database: Database, copy: Database, now: datetime) -> None:
    """What retention removed since the database was copied is not missing; the copy must not claim to have it."""
    with database.read() as connection:
        removed = [path for path in content.missing if inventory.is_removed(connection, path)]
    with copy.begin() as connection:
        for path in removed:
            inventory.leave_out(connection, path, now)
    content.missing = [path for path in content.missing if path not in removed]


def _verify(copy: Database, before: dict[str, int], after: dict[str, int]) -> None:
    condition = copy.examine()
    if condition.complaints or condition.revision != condition.newest:
        raise Unavailable(f"the copy of the database is not sound: {'; '.join(condition.complaints) or 'its schema'}")
    for table, count in _count(copy).items():
        if not before[table] <= count <= after[table]:
            raise Unavailable(f"the copy has {count} rows of {table}, not {before[table]} to {after[table]}")


def _count(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return inventory.count_rows(connection)


@contextmanager
def _opened(file: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{file}", migrate=False)
    try:
        yield database
    finally:
        database.close()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

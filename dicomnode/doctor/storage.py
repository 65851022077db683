"""Checks of the database and of the archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from dicomnode.archive import RECEIVED, RESULTS, Archive, digest
from dicomnode.database import Condition
from dicomnode.doctor.finding import Finding, Stores, Visit, failure, ok, warning
from dicomnode.errors import Unavailable
from dicomnode.store import inventory
from dicomnode.store.inventory import IndexedFile

_WEEK = timedelta(days=7)
_ROOM_DAYS = 14.0
_UNINDEXED = {RECEIVED: timedelta(minutes=10), RESULTS: timedelta(days=1)}  # a file precedes its row by less
_SHOWN = 3
_RESTORE = "put them back from a backup, or have their series sent again: what is missing is then stored anew"
_FULL = "2"  # PRAGMA synchronous


def check_database(_: Visit, stores: Stores) -> Iterator[Finding]:
    """Schema, integrity, and that a commit survives a power cut."""
    try:
        condition = stores.database.examine()
    except Unavailable as error:
        yield failure(
            "database", str(error), "see that it runs and lets this node in; if it is damaged, restore a backup"
        )
        return
    yield from _check_schema(condition)
    if not condition.journal_mode:
        yield ok("database", f"PostgreSQL, schema {condition.revision or 'missing'}")
        return
    if condition.complaints:
        yield failure(
            "database", f"integrity_check: {'; '.join(condition.complaints)}", "stop the node and restore a backup"
        )
    if (condition.journal_mode, condition.synchronous) != ("wal", _FULL):
        text = f"journal_mode is {condition.journal_mode}, synchronous {condition.synchronous}, not wal and {_FULL}"
        yield failure("database", text, "move the database to a local disk: network file systems know no WAL")
    elif not condition.complaints:
        yield ok("database", f"SQLite, schema {condition.revision}, sound, WAL, synchronous=FULL")


def _check_schema(condition: Condition) -> Iterator[Finding]:
    if condition.revision != condition.newest:
        text = f"its schema is {condition.revision or 'missing'}, this version's {condition.newest}"
        yield failure("schema", text, "start the node of this version once: it migrates; make a backup before")


def check_disk(visit: Visit, stores: Stores) -> Iterator[Finding]:
    """Whether files can be kept, and for how long."""
    if reason := stores.archive.probe():
        yield failure("archive", reason, "make room or extend the disk; set [retention]; the node goes on by itself")
        return
    with stores.database.read() as connection:
        per_day = inventory.bytes_since(connection, visit.now - _WEEK) / _WEEK.days
    room = stores.archive.room_bytes
    text = f"writable; {room / 1e9:.1f} GB free above the reserve, {per_day / 1e9:.2f} GB received a day"
    days = room / per_day if per_day else float("inf")
    if days < _ROOM_DAYS and not _is_bounded(visit):
        yield warning("archive", f"{text}: full in {days:.0f} days", "extend the disk, or set [retention]")
    else:
        yield ok("archive", text)


def _is_bounded(visit: Visit) -> bool:
    return visit.settings.retention.quota_gb is not None


@dataclass
class _Differences:
    """Paths by what is wrong with them."""

    missing: list[str] = field(default_factory=list)
    wrong_size: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def check_files(visit: Visit, stores: Stores) -> Iterator[Finding]:
    """Rows against files, both ways; in a deep visit their content too."""
    indexed: set[str] = set()
    wrong = _Differences()
    with stores.database.read() as connection:
        for file in inventory.files(connection):
            indexed.add(file.path)
            _compare(file, stores.archive, wrong, is_deep=visit.is_deep)
    with stores.database.read() as connection:  # retention may have removed some meanwhile
        wrong.missing = [path for path in wrong.missing if not inventory.is_removed(connection, path)]
    found = [
        *_tell("missing", wrong.missing, _RESTORE),
        *_tell("of another size than their rows say", wrong.wrong_size, "put them back from a backup"),
        *_tell("damaged: their SHA-256 is not that of their rows", wrong.damaged, "put them back from a backup"),
        *_check_unindexed(visit, stores, indexed),
    ]
    yield from found or [ok("files", f"{len(indexed)} indexed, all there" + (" and whole" if visit.is_deep else ""))]


def _compare(file: IndexedFile, archive: Archive, wrong: _Differences, *, is_deep: bool) -> None:
    try:
        size = archive.path(file.path).stat().st_size
        if file.size_bytes not in (None, size):
            wrong.wrong_size.append(file.path)
        elif is_deep and digest(file.path, archive.path(file.path).read_bytes()) != file.sha256:
            wrong.damaged.append(file.path)
    except FileNotFoundError:
        wrong.missing.append(file.path)
    except OSError:
        wrong.damaged.append(file.path)


def _check_unindexed(visit: Visit, stores: Stores, indexed: set[str]) -> Iterator[Finding]:
    strays = [
        path
        for area, grace in _UNINDEXED.items()
        for path in stores.archive.written_before(area, visit.now - grace)
        if path not in indexed
    ]
    yield from _tell(
        "without a row", strays, "restart the receiver: it indexes what a crash left, and removes the rest", warning
    )


def _tell(
    what: str, paths: list[str], advice: str, level: Callable[[str, str, str], Finding] = failure
) -> Iterator[Finding]:
    if paths:
        more = ", ..." if len(paths) > _SHOWN else ""
        yield level("files", f"{len(paths)} are {what}: {', '.join(paths[:_SHOWN])}{more}", advice)

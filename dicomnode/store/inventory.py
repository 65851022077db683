"""What is there and what waits: for the doctor and for backups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, func, null, select, update

from dicomnode.deliveries import DeliveryState
from dicomnode.jobs import JobState
from dicomnode.tables import deliveries, instances, job_events, jobs, measurements, results, series

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class IndexedFile:
    """A file that has a row. path: relative to the archive. size_bytes: None where the row does not say."""

    path: str
    size_bytes: int | None
    sha256: str


@dataclass(frozen=True)
class Backlog:
    """Work that stands still. overdue_jobs: were due before a moment. left: whose lease ended before it."""

    overdue_jobs: int
    jobs_at_work: int
    left_jobs: int
    left_deliveries: int
    failed_jobs: int


def files(connection: Connection) -> Iterator[IndexedFile]:
    """Every file that should be on disk, the results last."""
    i, r = instances.c, results.c
    received = select(i.path, i.size_bytes, i.sha256).where(i.removed_at.is_(None)).order_by(i.id)
    made = select(r.path, null(), r.sha256).where(r.removed_at.is_(None)).order_by(r.id)
    for statement in (received, made):
        rows = connection.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE})
        yield from (IndexedFile(*row) for row in rows)


def is_removed(connection: Connection, path: str) -> bool:
    """Whether retention removed the file meanwhile."""
    return not any(
        connection.scalar(select(table.c.id).where(table.c.path == path, table.c.removed_at.is_(None)))
        for table in (instances, results)
    )


def leave_out(connection: Connection, path: str, now: datetime) -> None:
    """Mark a file as removed, in a copy of the database that is to hold for a copy of the archive without it."""
    for table in (instances, results):
        connection.execute(update(table).where(table.c.path == path).values(removed_at=now, path=""))


def count_rows(connection: Connection) -> dict[str, int]:
    """How many rows each of the tables has that never lose one."""
    return {
        table.name: connection.scalar(select(func.count()).select_from(table)) or 0
        for table in (series, instances, jobs, job_events, results, measurements, deliveries)
    }


def bytes_since(connection: Connection, moment: datetime) -> int:
    """How much was received since then."""
    statement = select(func.sum(instances.c.size_bytes)).where(instances.c.received_at >= moment)
    return connection.scalar(statement) or 0


def newest_at(connection: Connection) -> datetime | None:
    """When anything last happened, by the clock of that time; None: nothing ever did."""
    moments = [
        connection.scalar(select(table.c[name]).order_by(table.c.id.desc()).limit(1))
        for table, name in ((instances, "received_at"), (job_events, "at"))
    ]
    return max((moment for moment in moments if moment), default=None)


def backlog(connection: Connection, before: datetime) -> Backlog:
    """What stands still since the moment."""
    state = jobs.c.state
    running = state == JobState.RUNNING
    return Backlog(
        overdue_jobs=_count(connection, jobs, (state == JobState.QUEUED) & (jobs.c.not_before < before)),
        jobs_at_work=_count(connection, jobs, running & (jobs.c.lease_until >= before)),
        left_jobs=_count(connection, jobs, running & (jobs.c.lease_until < before)),
        left_deliveries=_count(
            connection, deliveries, (deliveries.c.state == DeliveryState.SENDING) & (deliveries.c.lease_until < before)
        ),
        failed_jobs=_count(connection, jobs, state == JobState.FAILED),
    )


def deliveries_by_destination(connection: Connection) -> dict[str, dict[str, int]]:
    """For each destination, how many deliveries to it are in which state."""
    c = deliveries.c
    counts: dict[str, dict[str, int]] = {}
    for destination, state, count in connection.execute(
        select(c.destination, c.state, func.count()).group_by(c.destination, c.state)
    ):
        counts.setdefault(destination, {})[state] = count
    return counts


def _count(connection: Connection, table: Table, which: ColumnElement[bool]) -> int:
    return connection.scalar(select(func.count()).select_from(table).where(which)) or 0

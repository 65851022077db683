"""Files that retention may remove, marked before they go. Rows, measurements and history stay for ever.

`removed_at` is committed first, then the file goes, then `path` is emptied: a crash in between leaves a marked row with
a path, whose file goes at the next look. Nothing else takes a file away, and nothing brings one back but `put_back`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select, update

from dicomnode.arrivals import Patient
from dicomnode.deliveries import DeliveryState
from dicomnode.jobs import JobState
from dicomnode.retention import Files, Holding
from dicomnode.store import queue
from dicomnode.tables import deliveries, instances, jobs, results, series

_OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING, JobState.FAILED)
_AT_WORK = (JobState.QUEUED, JobState.RUNNING)
_TABLES = {Files.RECEIVED: instances, Files.RESULTS: results}


@dataclass(frozen=True)
class Marked:
    """What was marked as removed, with study and patient for the audit trail alone.

    sop_classes: how many files of each. is_whole_study: nothing of the study is left.
    """

    study_instance_uid: str
    patient: Patient
    sop_classes: Mapping[str, int]
    is_whole_study: bool

    @property
    def files(self) -> int:
        """How many files were marked."""
        return sum(self.sop_classes.values())


@dataclass(frozen=True)
class Condemned:
    """A file whose row is marked and that is still there, as far as is known. path: relative to the archive."""

    files: Files
    id: int
    path: str


def holdings(
    connection: Connection, files: Files, promising: Collection[str], series_instance_uid: str | None = None
) -> list[Holding]:
    """The files of every series, or of one, that are not removed.

    promising: the destinations whose archive promises storage commitment; what they have not confirmed is open.
    """
    gathered = _received() if files is Files.RECEIVED else _made()
    if series_instance_uid is not None:  # in here, or the database would gather those of every series
        gathered = gathered.where(gathered.selected_columns.series_instance_uid == series_instance_uid)
    held, uid = gathered.subquery(), series.c.series_instance_uid
    statement = select(
        uid,
        held.c.newest_at,
        held.c.size_bytes,
        series.c.waiting,
        _count(select(jobs.c.id).where(jobs.c.series_instance_uid == uid, jobs.c.state.in_(_OPEN_JOBS))),
        _count(_deliveries().where(jobs.c.series_instance_uid == uid, ~_is_settled(promising))),
        held.c.undelivered,
    ).join_from(series, held, held.c.series_instance_uid == uid)
    return [Holding(*row[:6], is_undelivered=bool(row.undelivered)) for row in connection.execute(statement)]


def _received() -> Select[Any]:
    c = instances.c
    return (
        select(
            c.series_instance_uid,
            func.max(c.received_at).label("newest_at"),
            func.sum(c.size_bytes).label("size_bytes"),
            literal(0).label("undelivered"),
        )
        .where(c.removed_at.is_(None))
        .group_by(c.series_instance_uid)
    )


def _made() -> Select[Any]:
    went_nowhere = ~select(deliveries.c.id).where(deliveries.c.result_id == results.c.id).exists()
    return (
        select(
            jobs.c.series_instance_uid,
            func.max(jobs.c.updated_at).label("newest_at"),
            literal(0).label("size_bytes"),
            func.count().filter(went_nowhere).label("undelivered"),
        )
        .join_from(jobs, results)
        .where(results.c.removed_at.is_(None))
        .group_by(jobs.c.series_instance_uid)
    )


def _deliveries() -> Select[Any]:
    return select(deliveries.c.id).join_from(deliveries, results).join(jobs)


def _is_settled(promising: Collection[str]) -> ColumnElement[bool]:
    c = deliveries.c
    return c.state.in_((DeliveryState.CONFIRMED, DeliveryState.CANCELLED)) | (
        (c.state == DeliveryState.SENT) & c.destination.not_in(promising)
    )


def _count(statement: Select[Any]) -> Any:
    return statement.with_only_columns(func.count()).scalar_subquery()


def lock(connection: Connection, series_instance_uid: str) -> None:
    """Let nobody add to the series, nor move its jobs and deliveries, until the transaction ends."""
    of_series = jobs.c.series_instance_uid == series_instance_uid
    connection.execute(_deliveries().where(of_series).with_for_update(of=deliveries))
    connection.execute(select(jobs.c.id).where(of_series).with_for_update(key_share=True))
    there = series.c.series_instance_uid == series_instance_uid
    connection.execute(select(series.c.waiting).where(there).with_for_update())


def mark(connection: Connection, files: Files, series_instance_uid: str, now: datetime) -> Marked:
    """Mark all files of the series as removed; its newest job's timeline says so."""
    table = _TABLES[files]
    revisions = select(jobs.c.id).where(jobs.c.series_instance_uid == series_instance_uid)
    of_series = instances.c.series_instance_uid == series_instance_uid
    where = table.c.removed_at.is_(None) & (of_series if files is Files.RECEIVED else results.c.job_id.in_(revisions))
    counted = select(table.c.sop_class_uid, func.count()).where(where).group_by(table.c.sop_class_uid)
    sop_classes: dict[str, int] = dict(connection.execute(counted).tuples().all())
    connection.execute(update(table).where(where).values(removed_at=now))
    newest = connection.scalar(revisions.order_by(jobs.c.id.desc()).limit(1))
    if newest is not None:
        note = f"{sum(sop_classes.values())} {files} files, by retention"
        queue.record(connection, newest, queue.TimelineEntry(now, "remove", queue.job(connection, newest).state, note))
    s = series.c
    known = select(s.study_instance_uid, s.patient_id, s.issuer_of_patient_id)
    study_uid, *patient = connection.execute(known.where(s.series_instance_uid == series_instance_uid)).one()
    return Marked(study_uid, Patient(*patient), sop_classes, not _is_any_left(connection, study_uid))


def _is_any_left(connection: Connection, study_instance_uid: str) -> bool:
    of_study = series.c.study_instance_uid == study_instance_uid
    received = select(instances.c.id).join_from(instances, series).where(of_study, instances.c.removed_at.is_(None))
    made = select(results.c.id).join_from(results, jobs).join(series).where(of_study, results.c.removed_at.is_(None))
    return any(connection.execute(statement.limit(1)).first() for statement in (received, made))


def is_any_condemned(connection: Connection) -> bool:
    """Whether a file is still to go."""
    return any(connection.execute(statement.limit(1)).first() for statement in _condemned().values())


def condemned(connection: Connection, limit: int) -> list[Condemned]:
    """Marked rows whose files are still to go, so many of each kind at most, locked until the transaction ends."""
    return [
        Condemned(files, *row)
        for files, statement in _condemned().items()
        for row in connection.execute(statement.limit(limit).with_for_update(key_share=True))
    ]


def _condemned() -> dict[Files, Select[Any]]:
    """Results of a job that is at work are left alone: it may just be writing them anew."""
    i, r = instances.c, results.c
    return {
        Files.RECEIVED: select(i.id, i.path).where(i.removed_at.is_not(None), i.path != ""),
        Files.RESULTS: (
            select(r.id, r.path)
            .join_from(results, jobs)
            .where(r.removed_at.is_not(None), r.path != "", jobs.c.state.not_in(_AT_WORK))
        ),
    }


def forget(connection: Connection, gone: Sequence[Condemned]) -> None:
    """Note that the files are no longer there."""
    for files, table in _TABLES.items():
        keys = [one.id for one in gone if one.files is files]
        connection.execute(update(table).where(table.c.id.in_(keys)).values(path=""))

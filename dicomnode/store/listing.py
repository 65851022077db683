"""What the dashboard lists: series that arrive, jobs, counts. Without names and IDs of patients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, case, func, or_, select

from dicomnode.history import LOWER_BOUND
from dicomnode.jobs import JobEvent, JobState
from dicomnode.store import Unknown
from dicomnode.tables import (
    alarms,
    deliveries,
    instances,
    invalidations,
    job_events,
    jobs,
    measurements,
    results,
    series,
)


@dataclass(frozen=True)
class ListedJob:
    """A job as people look at it. progress: while it is running, 0 to 1. volume_ml: None where none was measured.

    flags: names of the quality checks that spoke. is_invalid: a person marked the result so.
    """

    id: int
    series_instance_uid: str
    series_description: str
    revision: int
    instance_count: int
    state: str
    reason: str
    attempts: int
    created_at: datetime
    updated_at: datetime
    not_before: datetime
    progress: float | None
    volume_ml: float | None
    flags: tuple[str, ...]
    is_invalid: bool

    @property
    def is_lower_bound(self) -> bool:
        """Whether the true volume is this or more."""
        return LOWER_BOUND in self.flags


@dataclass(frozen=True)
class ArrivingSeries:
    """A series that waits to be complete. expected_instances: None where nobody counts."""

    series_instance_uid: str
    series_description: str
    calling_ae: str
    instance_count: int
    expected_instances: int | None
    last_received_at: datetime


@dataclass(frozen=True)
class MadeResult:
    """An object that a job made. removed_at: when retention removed its file."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    removed_at: datetime | None


def list_jobs(
    connection: Connection, limit: int, *, states: Collection[JobState] = (), text: str = "", before: int | None = None
) -> list[ListedJob]:
    """The newest jobs, newest first.

    states: none takes all. text: a part of the series' description or UID. before: those with a smaller id.
    """
    statement = _jobs().order_by(jobs.c.id.desc()).limit(limit)
    if states:
        statement = statement.where(jobs.c.state.in_(states))
    if text:
        columns = (series.c.series_description, series.c.study_description, series.c.series_instance_uid)
        statement = statement.where(or_(*(column.icontains(text, autoescape=True) for column in columns)))
    if before is not None:
        statement = statement.where(jobs.c.id < before)
    return [_listed(row) for row in connection.execute(statement).mappings()]


def listed_job(connection: Connection, job_id: int) -> ListedJob:
    """The job with this id; raises Unknown."""
    row = connection.execute(_jobs().where(jobs.c.id == job_id)).mappings().one_or_none()
    if row is None:
        raise Unknown(f"there is no job {job_id}")
    return _listed(row)


def _jobs() -> Select[Any]:
    m, mark = measurements.c, invalidations.c
    is_invalid = mark.id.is_not(None).label("is_invalid")
    progress = case((jobs.c.state == JobState.RUNNING, jobs.c.progress)).label("progress")
    found = {"volume_ml": m.volume_ml, "flags": m.flags, "is_invalid": is_invalid, "progress": progress}
    known: dict[str, ColumnElement[Any]] = {**series.c, **jobs.c, **found}
    return (
        select(*(known[name] for name in ListedJob.__dataclass_fields__))
        .select_from(jobs.join(series))
        .outerjoin(measurements, (m.job_id == jobs.c.id) & m.found.is_(True))
        .outerjoin(invalidations, (mark.job_id == jobs.c.id) & mark.lifted_at.is_(None))
    )


def _listed(row: RowMapping) -> ListedJob:
    return ListedJob(**{**row, "flags": tuple(row["flags"] or ())})


def count_jobs(connection: Connection) -> dict[str, int]:
    """How many jobs are in which state."""
    return dict(connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).tuples().all())


def oldest_due(connection: Connection) -> datetime | None:
    """Since when the job waits that has been due for longest; None: none waits."""
    return connection.scalar(select(func.min(jobs.c.not_before)).where(jobs.c.state == JobState.QUEUED))


def arriving(connection: Connection, limit: int) -> list[ArrivingSeries]:
    """The series with instances that no job covers yet, the last to grow first."""
    s, i = series.c, instances.c
    last = func.max(i.received_at)
    columns = (s.series_instance_uid, s.series_description, func.max(i.calling_ae), func.count(i.id))
    statement = (
        select(*columns, s.expected_instances, last)
        .join_from(series, instances)
        .where(s.waiting.is_(True))
        .group_by(s.series_instance_uid, s.series_description, s.expected_instances)
        .order_by(last.desc())
        .limit(limit)
    )
    return [ArrivingSeries(*row) for row in connection.execute(statement)]


def results_of(connection: Connection, job_id: int) -> list[MadeResult]:
    """What a job made, oldest first."""
    c = results.c
    statement = select(c.sop_class_uid, c.sop_instance_uid, c.series_instance_uid, c.removed_at)
    return [MadeResult(*row) for row in connection.execute(statement.where(c.job_id == job_id).order_by(c.id))]


def oldest_delivery(connection: Connection, state: str) -> datetime | None:
    """Since when the delivery stands in the state that does so for longest."""
    return connection.scalar(select(func.min(deliveries.c.since)).where(deliveries.c.state == state))


def count_alarms(connection: Connection) -> dict[str, int]:
    """How many alarms of which kind are on."""
    statement = select(alarms.c.kind, func.count()).where(alarms.c.cleared_at.is_(None)).group_by(alarms.c.kind)
    return dict(connection.execute(statement).tuples().all())


def newest_instance(connection: Connection) -> int:
    """The number of the instance that came last; they are counted from 1, and none is given twice."""
    return connection.scalar(select(func.max(instances.c.id))) or 0


def analysis_spans(connection: Connection, since: datetime) -> list[timedelta]:
    """How long each analysis took that ended since then."""
    e = job_events.c
    moves = (JobEvent.CLAIM, JobEvent.FINISH)
    statement = (
        select(e.job_id, e.event, e.at)
        .join(jobs)
        .where(jobs.c.updated_at >= since, e.event.in_(moves), e.delivery_id.is_(None))
        .order_by(e.id)
    )
    begun: dict[int, datetime] = {}
    spans = []
    for job_id, event, at in connection.execute(statement):
        if event == JobEvent.CLAIM:
            begun[job_id] = at
        elif at >= since and job_id in begun:
            spans.append(at - begun[job_id])
    return spans

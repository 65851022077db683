"""Jobs: made from arrivals, claimed under a lease, moved along their table; every move leaves a row in `job_events`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from dicomnode.arrivals import Arrival
from dicomnode.jobs import MOVES, Job, JobEvent, JobState, RetryPolicy
from dicomnode.lifecycle import IllegalMove, move
from dicomnode.store import LeaseLost, Unknown
from dicomnode.tables import instances, job_events, jobs, series

_CHOSEN = (JobState.QUEUED, JobState.RUNNING, JobState.DONE)


@dataclass(frozen=True)
class TimelineEntry:
    """One move of a job or of one of its deliveries."""

    at: datetime
    event: str
    state: str
    note: str
    delivery_id: int | None = None


def add_job(connection: Connection, arrival: Arrival, skip_reason: str, now: datetime) -> int:
    """Turn an arrival into the next revision of its series' job: queued, or skipped with the reason; returns its id."""
    uid = arrival.series_instance_uid
    count = func.count(instances.c.id)
    covered = select(count).where(instances.c.series_instance_uid == uid, instances.c.id <= arrival.last_instance_id)
    earlier = select(func.count(jobs.c.id)).where(jobs.c.series_instance_uid == uid)
    state = JobState.SKIPPED if skip_reason else JobState.QUEUED
    values = {
        "series_instance_uid": uid,
        "revision": (connection.scalar(earlier) or 0) + 1,
        "state": state,
        "reason": skip_reason,
        "attempts": 0,
        "last_instance_id": arrival.last_instance_id,
        "instance_count": connection.scalar(covered) or 0,
        "created_at": now,
        "updated_at": now,
        "not_before": now,
    }
    job_id = _key(connection.execute(insert(jobs).values(values)).inserted_primary_key)
    connection.execute(
        update(series)
        .where(series.c.series_instance_uid == uid)
        .values(covered_until=arrival.last_instance_id, waiting=False)
    )
    note = skip_reason or f"{values['instance_count']} instances"
    record(connection, job_id, TimelineEntry(now, "create", state, note))
    return job_id


def chosen(connection: Connection, study_instance_uid: str) -> dict[str, int]:
    """The series of a study that wait for the worker, are with it or were measured: UID -> last instance covered."""
    statement = (
        select(jobs.c.series_instance_uid, func.max(jobs.c.last_instance_id))
        .join(series)
        .where(series.c.study_instance_uid == study_instance_uid, jobs.c.state.in_(_CHOSEN))
        .group_by(jobs.c.series_instance_uid)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def is_any_due(connection: Connection, now: datetime) -> bool:
    """Whether a job waits to be claimed, or was left by a worker that died."""
    queued = (jobs.c.state == JobState.QUEUED) & (jobs.c.not_before <= now)
    left = (jobs.c.state == JobState.RUNNING) & (jobs.c.lease_until < now)
    return connection.scalar(select(jobs.c.id).where(queued | left).limit(1)) is not None


def claim(connection: Connection, holder: str, now: datetime, lease_s: float) -> Job | None:
    """Take the oldest job that is due, under a lease; None where there is none.

    A job whose series has a later revision is skipped instead: it knows only a part of the instances.
    """
    _supersede(connection, now)
    statement = (
        select(jobs)
        .where(jobs.c.state == JobState.QUEUED, jobs.c.not_before <= now)
        .order_by(jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    lease = {"attempts": row.attempts + 1, "lease_holder": holder, "lease_until": now + timedelta(seconds=lease_s)}
    move_job(connection, row, JobEvent.CLAIM, (now, f"attempt {row.attempts + 1}"), lease)
    return job(connection, row.id)


def _supersede(connection: Connection, now: datetime) -> None:
    later = jobs.alias("later")
    same_series = later.c.series_instance_uid == jobs.c.series_instance_uid
    latest = select(func.max(later.c.id)).where(same_series).scalar_subquery()
    statement = select(jobs, latest.label("latest")).where(jobs.c.state == JobState.QUEUED, jobs.c.id < latest)
    for row in connection.execute(statement.with_for_update(of=jobs, skip_locked=True)).all():
        reason = f"superseded by job {row.latest}, which knows later instances"
        move_job(connection, row, JobEvent.SUPERSEDE, (now, reason), {"reason": reason})


def renew(connection: Connection, job_id: int, holder: str, until: datetime) -> bool:
    """Prolong the lease; False where the job is no longer this holder's."""
    statement = update(jobs).where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.lease_holder == holder)
    return bool(connection.execute(statement.values(lease_until=until)).rowcount)


def expire(connection: Connection, policy: RetryPolicy, now: datetime) -> int:
    """Take every job with an outrun lease from its dead worker: queued again, or failed for good; returns how many."""
    statement = select(jobs).where(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < now)
    rows = connection.execute(statement.with_for_update(skip_locked=True)).all()
    for row in rows:
        put_back(connection, row, (JobEvent.EXPIRE, "the worker gave no sign of life"), policy, now)
    return len(rows)


def put_back(
    connection: Connection, row: Job | Row[Any], why: tuple[JobEvent, str], policy: RetryPolicy, now: datetime
) -> None:
    """Queue a running job again after the policy's wait, or fail it where its attempts are used up."""
    event, reason = why
    if policy.is_exhausted(row.attempts):
        event, reason = JobEvent.GIVE_UP, f"{reason}; given up after {row.attempts} attempts"
    due = now + timedelta(seconds=policy.backoff.wait_s(row.attempts))
    move_job(connection, row, event, (now, reason), {"reason": reason, "not_before": due, "lease_holder": None})


def refuse(connection: Connection, held: Job, reason: str, now: datetime) -> None:
    """End a running job: its series cannot be measured."""
    move_job(connection, held, JobEvent.REFUSE, (now, reason), {"reason": reason, "lease_holder": None})


def check_lease(connection: Connection, job_id: int, holder: str) -> None:
    """Raise LeaseLost unless the job is running under this holder's lease; locks the row until the transaction ends."""
    statement = select(jobs.c.lease_holder, jobs.c.state).where(jobs.c.id == job_id).with_for_update()
    row = connection.execute(statement).one()
    if (row.lease_holder, row.state) != (holder, JobState.RUNNING):
        raise LeaseLost(f"job {job_id} was taken over")


def requeue(connection: Connection, job_id: int, now: datetime) -> Job:
    """Queue an ended job again, its attempts forgotten. Raises Unknown or IllegalMove."""
    row = job(connection, job_id)
    move_job(
        connection, row, JobEvent.REQUEUE, (now, "by an operator"), {"attempts": 0, "reason": "", "not_before": now}
    )
    return job(connection, job_id)


def job(connection: Connection, job_id: int) -> Job:
    """The job with this id; raises Unknown."""
    row = connection.execute(_select_jobs().where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise Unknown(f"there is no job {job_id}")
    return _job(row)


def list_jobs(connection: Connection, limit: int) -> list[Job]:
    """The newest jobs, newest first."""
    return [_job(row) for row in connection.execute(_select_jobs().order_by(jobs.c.id.desc()).limit(limit))]


def timeline(connection: Connection, job_id: int) -> list[TimelineEntry]:
    """Every move of a job and of its deliveries, oldest first."""
    c = job_events.c
    statement = select(c.at, c.event, c.state, c.note, c.delivery_id).where(c.job_id == job_id).order_by(c.id)
    return [TimelineEntry(*row) for row in connection.execute(statement)]


def _select_jobs() -> Select[Any]:
    return select(*(jobs.c[name] for name in Job.__dataclass_fields__))


def _job(row: Row[Any]) -> Job:
    return Job(**{**row._mapping, "state": JobState(row.state)})


def move_job(
    connection: Connection, row: Job | Row[Any], event: JobEvent, note: tuple[datetime, str], values: dict[str, Any]
) -> None:
    """Move a job by an event, write the further columns, leave a row; note: time and text. Raises IllegalMove."""
    now, text = note
    before = JobState(row.state)
    after = move(MOVES, before, event)
    statement = update(jobs).where(jobs.c.id == row.id, jobs.c.state == before)
    if not connection.execute(statement.values(state=after, updated_at=now, **values)).rowcount:
        raise IllegalMove(f"job {row.id} is no longer {before}")
    record(connection, row.id, TimelineEntry(now, event, after, text))


def record(connection: Connection, job_id: int, entry: TimelineEntry) -> None:
    """Leave a row in the timeline of a job, or of one of its deliveries."""
    connection.execute(insert(job_events).values(job_id=job_id, **asdict(entry)))


def _key(primary_key: Row[Any] | None) -> int:
    if primary_key is None:
        raise RuntimeError("the database returned no key for an inserted row")
    return int(primary_key[0])

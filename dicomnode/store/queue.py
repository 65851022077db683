"""Jobs: made from arrivals, claimed under a lease, moved along their table; every move leaves a row in `job_events`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from dicomnode.arrivals import Arrival
from dicomnode.errors import Refused
from dicomnode.jobs import MOVES, Job, JobEvent, JobState, RetryPolicy
from dicomnode.lifecycle import IllegalMove, move
from dicomnode.store import LeaseLost, Unknown, notices
from dicomnode.store.notices import Cause
from dicomnode.tables import instances, job_events, jobs, refusals, series
from dicomnode.topics import Topic

CONFLICT = "conflict"
"""Kind of refusal, and event on a timeline: other content came under the UID of a stored instance."""

_TOPICS = {JobEvent.REFUSE: Topic.JOB_REFUSED, JobEvent.GIVE_UP: Topic.JOB_FAILED}
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
    """Turn an arrival into the next revision of its series' job: queued, or skipped with the reason; returns its id.

    A queued one supersedes every earlier revision.
    """
    uid = arrival.series_instance_uid
    earlier = _revisions(connection, uid)
    revision = len(earlier) + 1
    if not skip_reason:
        _supersede(connection, earlier, revision, now)
    values = {
        "series_instance_uid": uid,
        "revision": revision,
        "state": JobState.SKIPPED if skip_reason else JobState.QUEUED,
        "reason": skip_reason,
        "attempts": 0,
        "last_instance_id": arrival.last_instance_id,
        "instance_count": arrival.instance_count,
        "expected_instances": arrival.expected_instances,
        "expected_by": arrival.expected_by,
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
    added = job(connection, job_id)
    note = skip_reason or added.shortfall or f"{added.instance_count} instances"
    record(connection, job_id, TimelineEntry(now, "create", added.state, note))
    if conflicts := _conflicts(connection, uid):
        note = f"other content came under the UIDs of {conflicts} instances; the first is kept of each"
        record(connection, job_id, TimelineEntry(now, CONFLICT, added.state, note))
    return job_id


def _conflicts(connection: Connection, series_instance_uid: str) -> int:
    c = refusals.c
    theirs = select(instances.c.sop_instance_uid).where(instances.c.series_instance_uid == series_instance_uid)
    count = select(func.count(c.sop_instance_uid.distinct()))
    return connection.scalar(count.where(c.kind == CONFLICT, c.sop_instance_uid.in_(theirs))) or 0


def chosen(connection: Connection, study_instance_uid: str) -> dict[str, int]:
    """The series of a study that wait for the worker, are with it or were measured: UID -> last instance covered.

    Without those that retention removed: nothing can be compared with them any more.
    """
    removed = instances.c.removed_at.is_not(None) & (instances.c.series_instance_uid == jobs.c.series_instance_uid)
    statement = (
        select(jobs.c.series_instance_uid, func.max(jobs.c.last_instance_id))
        .join(series)
        .where(series.c.study_instance_uid == study_instance_uid, jobs.c.state.in_(_CHOSEN))
        .where(~select(instances.c.id).where(removed).exists())
        .group_by(jobs.c.series_instance_uid)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def is_any_due(connection: Connection, now: datetime) -> bool:
    """Whether a job waits to be claimed, or was left by a worker that died."""
    queued = (jobs.c.state == JobState.QUEUED) & (jobs.c.not_before <= now)
    left = (jobs.c.state == JobState.RUNNING) & (jobs.c.lease_until < now)
    return connection.scalar(select(jobs.c.id).where(queued | left).limit(1)) is not None


def claim(connection: Connection, holder: str, now: datetime, lease_s: float) -> Job | None:
    """Take the oldest job that is due, under a lease; None where there is none."""
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
    lease = {"lease_holder": holder, "lease_until": now + timedelta(seconds=lease_s)}
    attempt = {"attempts": row.attempts + 1, "progress": 0.0}
    move_job(connection, row, JobEvent.CLAIM, (now, f"attempt {row.attempts + 1}"), lease | attempt)
    return job(connection, row.id)


def _supersede(connection: Connection, rows: Sequence[Row[Any]], revision: int, now: datetime) -> None:
    """Take every job of the rows out of count in favour of a later revision, whatever became of it."""
    for row in rows:
        if row.state != JobState.SUPERSEDED:
            was = f"{row.state}: {row.reason}" if row.reason else row.state
            reason = f"superseded by revision {revision}, which knows later instances; was {was}"
            values = {"reason": reason, "lease_holder": None}
            move_job(connection, row, JobEvent.SUPERSEDE, (now, reason), values)


def _revisions(connection: Connection, series_instance_uid: str) -> Sequence[Row[Any]]:
    """Every job of a series, oldest first; locked until the transaction ends."""
    statement = select(jobs).where(jobs.c.series_instance_uid == series_instance_uid).order_by(jobs.c.revision)
    return connection.execute(statement.with_for_update()).all()


def renew(connection: Connection, job_id: int, holder: str, until: datetime, progress: float = 0.0) -> bool:
    """Prolong the lease and say how far the job is, 0 to 1; False where the job is no longer this holder's."""
    statement = update(jobs).where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.lease_holder == holder)
    return bool(connection.execute(statement.values(lease_until=until, progress=progress)).rowcount)


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
        raise LeaseLost(f"job {job_id} was taken over or superseded")


def requeue(connection: Connection, job_id: int, now: datetime, by: str = "an operator") -> Job:
    """Queue an ended job again, its attempts forgotten. Raises Unknown, IllegalMove, or Refused: its files are removed.

    by: who wants it. Only the newest revision of a series: the earlier ones know a part of it only.
    """
    row = job(connection, job_id)
    *earlier, newest = _revisions(connection, row.series_instance_uid)
    if newest.id != job_id:
        raise IllegalMove(f"job {job_id} knows a part of its series only: requeue job {newest.id}")
    _supersede(connection, earlier, row.revision, now)
    afresh = {"attempts": 0, "reason": "", "not_before": now}
    move_job(connection, row, JobEvent.REQUEUE, (now, f"by {by}"), afresh)
    # After the move, which holds retention off until the transaction ends.
    if removed := count_removed(connection, row):
        raise Refused(
            f"job {job_id}: {removed} of its images were removed by retention; have the series sent again first"
        )
    return job(connection, job_id)


def count_removed(connection: Connection, row: Job) -> int:
    """How many of the instances that the job covers were removed by retention."""
    c = instances.c
    covered = (c.series_instance_uid == row.series_instance_uid) & (c.id <= row.last_instance_id)
    return connection.scalar(select(func.count(c.removed_at)).where(covered)) or 0


def job(connection: Connection, job_id: int) -> Job:
    """The job with this id; raises Unknown."""
    row = connection.execute(_select_jobs().where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise Unknown(f"there is no job {job_id}")
    return _job(row)


def newest(connection: Connection, series_instance_uid: str) -> Job | None:
    """The newest revision of a series, or None: it has no job yet."""
    statement = _select_jobs().where(jobs.c.series_instance_uid == series_instance_uid)
    row = connection.execute(statement.order_by(jobs.c.revision.desc()).limit(1)).one_or_none()
    return None if row is None else _job(row)


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
    if event in _TOPICS:
        notices.note(connection, Cause(_TOPICS[event], text, job_id=row.id), now)


def record(connection: Connection, job_id: int, entry: TimelineEntry) -> None:
    """Leave a row in the timeline of a job, or of one of its deliveries."""
    connection.execute(insert(job_events).values(job_id=job_id, **asdict(entry)))


def _key(primary_key: Row[Any] | None) -> int:
    if primary_key is None:
        raise RuntimeError("the database returned no key for an inserted row")
    return int(primary_key[0])

"""Notices: written with their cause, in one transaction, so that none is lost; told later by the heralds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, literal, null, select, update

from dicomnode.notices import Notice, NoticeState
from dicomnode.tables import UTCTime, alarms, jobs, notices, series, subscriptions
from dicomnode.topics import Topic

_NOTICE = [notices.c[name] for name in Notice.__dataclass_fields__]


@dataclass(frozen=True)
class Cause:
    """What a notice is about: a job, or an alarm. reason: without a name or an identifier of a patient."""

    topic: Topic
    reason: str
    job_id: int | None = None
    alarm_id: int | None = None


@dataclass(frozen=True)
class ListedNotice:
    """A notice as people look at it. not_before: of the next attempt, where it is pending."""

    id: int
    notification: str
    topic: str
    state: str
    attempts: int
    created_at: datetime
    not_before: datetime
    outcome: str


def subscribe(connection: Connection, wanted: Mapping[str, Collection[Topic]]) -> None:
    """Write down which notification wants to be told of what; all others of before want nothing any more."""
    connection.execute(delete(subscriptions))
    rows = [{"notification": name, "topic": topic} for name, topics in wanted.items() for topic in sorted(set(topics))]
    if rows:
        connection.execute(insert(subscriptions), rows)


def note(connection: Connection, cause: Cause, now: datetime) -> None:
    """Leave a notice for everyone who subscribed to the topic; part of the transaction of its cause."""
    values = {
        "topic": literal(cause.topic),
        "job_id": null() if cause.job_id is None else literal(cause.job_id),
        "alarm_id": null() if cause.alarm_id is None else literal(cause.alarm_id),
        "reason": literal(cause.reason),
        "state": literal(NoticeState.PENDING),
        "outcome": literal(""),
        "attempts": literal(0),
        "created_at": literal(now, UTCTime()),
        "not_before": literal(now, UTCTime()),
    }
    who = select(subscriptions.c.notification, *values.values()).where(subscriptions.c.topic == cause.topic)
    connection.execute(insert(notices).from_select(["notification", *values], who))


def is_any_due(connection: Connection, notification: str, now: datetime) -> bool:
    """Whether something waits to be told, or was left by a herald that died."""
    c = notices.c
    due = (c.notification == notification) & (c.state == NoticeState.PENDING) & (c.not_before <= now)
    return connection.scalar(select(c.id).where(due).limit(1)) is not None


def claim(connection: Connection, notification: str, now: datetime, lease_s: float) -> Notice | None:
    """Take the oldest notice that is due; nobody else gets it before the lease is over. None: there is none."""
    c = notices.c
    due = (c.notification == notification) & (c.state == NoticeState.PENDING) & (c.not_before <= now)
    statement = select(c.id).where(due).order_by(c.id).limit(1).with_for_update(skip_locked=True)
    key = connection.scalar(statement)
    if key is None:
        return None
    lease = {"attempts": c.attempts + 1, "not_before": now + timedelta(seconds=lease_s)}
    connection.execute(update(notices).where(c.id == key).values(lease))
    row = connection.execute(select(*_NOTICE).where(c.id == key)).mappings().one()
    return Notice(**{**row, "topic": Topic(row["topic"])})


def settle(connection: Connection, notice_id: int, state: NoticeState, outcome: str) -> None:
    """Say what became of a claimed notice, for good."""
    connection.execute(update(notices).where(notices.c.id == notice_id).values(state=state, outcome=outcome))


def postpone(connection: Connection, notice_id: int, until: datetime, outcome: str) -> None:
    """Have a claimed notice tried again, not before `until`."""
    connection.execute(update(notices).where(notices.c.id == notice_id).values(not_before=until, outcome=outcome))


def list_notices(connection: Connection, limit: int) -> list[ListedNotice]:
    """The newest notices, newest first."""
    columns = [notices.c[name] for name in ListedNotice.__dataclass_fields__]
    rows = connection.execute(select(*columns).order_by(notices.c.id.desc()).limit(limit)).mappings()
    return [ListedNotice(**row) for row in rows]


def alarm(connection: Connection, alarm_id: int) -> str:
    """Kind and subject of an alarm."""
    row = connection.execute(select(alarms.c.kind, alarms.c.subject).where(alarms.c.id == alarm_id)).one()
    return f"{row.kind} {row.subject}"


def patient_fields(connection: Connection, job_id: int) -> dict[str, str]:
    """Whose series a job measures, and which: for notifications that may tell."""
    c = series.c
    columns = {
        "patient_id": c.patient_id,
        "issuer": c.issuer_of_patient_id,
        "patient_name": c.patient_name,
        "study_instance_uid": c.study_instance_uid,
        "series_instance_uid": c.series_instance_uid,
        "acquired_at": c.acquired_at,
    }
    labelled = [column.label(name) for name, column in columns.items()]
    return dict(connection.execute(select(*labelled).join(jobs).where(jobs.c.id == job_id)).mappings().one())

"""Alarms, which stay until their cause is gone, and refusals: what peers were denied."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from dicomnode.store import notices
from dicomnode.store.notices import Cause
from dicomnode.tables import alarms, refusals
from dicomnode.topics import Topic


class AlarmKind(StrEnum):
    """What needs a person."""

    DISK = "disk"
    DELIVERY = "delivery"
    CONFIRMATION = "confirmation"
    SECURITY = "security"
    CERTIFICATE = "certificate"
    PULL = "pull"
    NOTICE = "notice"


@dataclass(frozen=True)
class Alarm:
    """A cause that lasts. subject: what it is about, such as a destination's name; never a patient."""

    kind: str
    subject: str
    reason: str
    raised_at: datetime
    cleared_at: datetime | None


@dataclass(frozen=True)
class Refusal:
    """Something that a peer was denied. kind: such as `caller`, `address`, `size`, `conflict`."""

    at: datetime
    kind: str
    calling_ae: str
    address: str
    sop_instance_uid: str
    reason: str


def raise_alarm(connection: Connection, kind: AlarmKind, subject: str, reason: str, now: datetime) -> bool:
    """Raise an alarm, or renew the reason of the one that is on; whether it was off before."""
    on = update(alarms).where(_is_on(kind, subject))
    if connection.execute(on.values(reason=reason)).rowcount:
        return False
    values = {"kind": kind, "subject": subject, "reason": reason, "raised_at": now}
    alarm_id = connection.scalar(insert(alarms).values(values).returning(alarms.c.id))
    notices.note(connection, Cause(Topic.ALARM_RAISED, reason, alarm_id=alarm_id), now)
    return True


def clear_alarm(connection: Connection, kind: AlarmKind, subject: str, now: datetime) -> bool:
    """Take an alarm off; whether it was on."""
    row = connection.execute(select(alarms.c.id, alarms.c.reason).where(_is_on(kind, subject))).one_or_none()
    if row is None:
        return False
    connection.execute(update(alarms).where(alarms.c.id == row.id).values(cleared_at=now))
    notices.note(connection, Cause(Topic.ALARM_CLEARED, row.reason, alarm_id=row.id), now)
    return True


def is_on(connection: Connection, kind: AlarmKind, subject: str) -> bool:
    """Whether an alarm is on."""
    return connection.scalar(select(alarms.c.id).where(_is_on(kind, subject))) is not None


def list_alarms(connection: Connection, limit: int, *, only_on: bool = True) -> list[Alarm]:
    """The newest alarms, those that are on or all."""
    c = alarms.c
    statement = select(c.kind, c.subject, c.reason, c.raised_at, c.cleared_at).order_by(c.id.desc()).limit(limit)
    if only_on:
        statement = statement.where(c.cleared_at.is_(None))
    return [Alarm(*row) for row in connection.execute(statement)]


def record_refusal(connection: Connection, refusal: Refusal) -> None:
    """Keep what a peer was denied."""
    connection.execute(insert(refusals).values(asdict(refusal)))


def forget_refusals(connection: Connection, most: int) -> None:
    """Keep the newest so many refusals."""
    newest = select(refusals.c.id).order_by(refusals.c.id.desc())
    connection.execute(delete(refusals).where(refusals.c.id <= newest.offset(most).limit(1).scalar_subquery()))


def has_refused(connection: Connection, kind: str, calling_ae: str, sop_instance_uid: str) -> bool:
    """Whether this sender was denied this instance before, for the same kind of reason."""
    c = refusals.c
    same = (c.kind == kind) & (c.calling_ae == calling_ae) & (c.sop_instance_uid == sop_instance_uid)
    return connection.scalar(select(c.id).where(same).limit(1)) is not None


def list_refusals(connection: Connection, limit: int, skip: int = 0) -> list[Refusal]:
    """The newest refusals, but for so many that are newer still."""
    c = refusals.c
    names = (c.at, c.kind, c.calling_ae, c.address, c.sop_instance_uid, c.reason)
    return [Refusal(*row) for row in connection.execute(select(*names).order_by(c.id.desc()).limit(limit).offset(skip))]


def _is_on(kind: AlarmKind, subject: str) -> ColumnElement[bool]:
    return (alarms.c.kind == kind) & (alarms.c.subject == subject) & alarms.c.cleared_at.is_(None)

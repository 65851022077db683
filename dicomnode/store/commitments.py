"""Storage commitment: which deliveries an archive is to confirm, and what it was asked for in which transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from dicomnode.deliveries import Delivery, DeliveryEvent, DeliveryState, Outcome
from dicomnode.store import outbox
from dicomnode.tables import commitments, deliveries


@dataclass(frozen=True)
class Asked:
    """A delivery that a transaction asked for. is_last: no later transaction asked for it."""

    delivery: Delivery
    state: DeliveryState
    is_last: bool


def is_any_to_ask(connection: Connection, destination: str, now: datetime) -> bool:
    """Whether a delivery is sent and neither confirmed nor still to be reported on, or was never to be until now."""
    either = _to_ask(destination, now) | _unpromised(destination)
    return connection.scalar(select(deliveries.c.id).where(either).limit(1)) is not None


def to_ask(connection: Connection, destination: str, now: datetime) -> list[Delivery]:
    """Those deliveries, oldest first, at most a hundred."""
    statement = select(deliveries.c.id).where(_to_ask(destination, now)).order_by(deliveries.c.id).limit(100)
    keys = list(connection.scalars(statement.with_for_update(skip_locked=True)))
    return [outbox.delivery(connection, key) for key in keys]


def adopt(connection: Connection, destination: str, now: datetime) -> None:
    """Let what was sent before storage commitment was switched on be asked for too; its time counts from now."""
    connection.execute(update(deliveries).where(_unpromised(destination)).values(report_until=now, since=now))


def ask(connection: Connection, delivery_id: int, transaction_uid: str, now: datetime, until: datetime) -> None:
    """Write down that a delivery is asked for, before it is: its report may be here before the request returns."""
    values = {"transaction_uid": transaction_uid, "report_until": until}
    reason = f"asked for storage commitment, transaction {transaction_uid}"
    outbox.settle(connection, delivery_id, Outcome(DeliveryEvent.ASK, reason), now, values)
    asked = {"transaction_uid": transaction_uid, "delivery_id": delivery_id, "asked_at": now}
    connection.execute(insert(commitments).values(asked))


def count_asked(connection: Connection, delivery_id: int) -> int:
    """How often a delivery was asked for."""
    statement = select(func.count()).select_from(commitments).where(commitments.c.delivery_id == delivery_id)
    return connection.scalar(statement) or 0


def asked(connection: Connection, transaction_uid: str) -> list[Asked]:
    """The deliveries of a transaction; none where it is not one of this node's."""
    statement = (
        select(deliveries.c.id, deliveries.c.state, deliveries.c.transaction_uid)
        .join_from(commitments, deliveries)
        .where(commitments.c.transaction_uid == transaction_uid)
        .order_by(deliveries.c.id)
        .with_for_update(of=deliveries)
    )
    return [
        Asked(outbox.delivery(connection, row.id), DeliveryState(row.state), row.transaction_uid == transaction_uid)
        for row in connection.execute(statement).all()
    ]


def count_overdue(connection: Connection, destination: str, before: datetime) -> int:
    """How many deliveries are to be confirmed since that time or longer, and are not."""
    there = (deliveries.c.destination == destination) & (deliveries.c.since <= before)
    statement = select(func.count()).select_from(deliveries).where(there & _awaiting())
    return connection.scalar(statement) or 0


def _to_ask(destination: str, now: datetime) -> ColumnElement[bool]:
    return (deliveries.c.destination == destination) & (deliveries.c.report_until <= now) & _awaiting()


def _awaiting() -> ColumnElement[bool]:
    return (deliveries.c.state == DeliveryState.SENT) & deliveries.c.report_until.is_not(None)


def _unpromised(destination: str) -> ColumnElement[bool]:
    is_sent = (deliveries.c.destination == destination) & (deliveries.c.state == DeliveryState.SENT)
    return is_sent & deliveries.c.report_until.is_(None)

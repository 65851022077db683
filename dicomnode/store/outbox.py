"""Results, measurements and deliveries: written together with *done*, sent later, kept until the archive has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from dicomnode.deliveries import MOVES, STUCK, Delivery, DeliveryEvent, DeliveryState, Outcome
from dicomnode.errors import Refused
from dicomnode.history import Conditions
from dicomnode.jobs import Job, JobEvent, JobState
from dicomnode.lifecycle import IllegalMove, move
from dicomnode.store import Unknown, notices, queue, watch
from dicomnode.store.notices import Cause
from dicomnode.store.upsert import insert_new
from dicomnode.tables import deliveries, jobs, measurements, results
from dicomnode.topics import Topic

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."  # what the UIDs of all SR storage classes begin with (PS3.4 B.5)


@dataclass(frozen=True)
class StoredResult:
    """A result on disk. path: relative to the archive. basis: what tells the editions of a report apart."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str
    sha256: str
    basis: str = ""


@dataclass(frozen=True)
class Measured:
    """What a job measured, for the history. volume_ml counts only where the organ was found."""

    found: bool
    volume_ml: float
    confidence: float
    flags: tuple[str, ...]
    model_name: str
    model_version: str
    model_sha256: str
    repeatability_percent: float | None = None
    conditions: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True)
class Finished:
    """All that a job leaves behind.

    assumed: what was taken for granted about the series, a line each. destinations: names from the settings.
    """

    measured: Measured
    assumed: Sequence[str]
    results: Sequence[StoredResult]
    destinations: Sequence[str]


@dataclass(frozen=True)
class ListedDelivery:
    """A delivery as people look at it. not_before: of the next attempt, where it is pending."""

    id: int
    state: str
    destination: str
    job_id: int
    sop_class_uid: str
    sop_instance_uid: str
    attempts: int
    denials: int
    not_before: datetime
    sent_at: datetime | None
    report_until: datetime | None
    confirmed_at: datetime | None
    reason: str


def finish(connection: Connection, held: Job, finished: Finished, now: datetime) -> None:
    """End a running job as done, with its measurement, its results and one delivery of each result per destination.

    A rerun replaces the measurement and sends the same objects again; of those that it no longer makes, what was not
    sent is cancelled.
    """
    measured = finished.measured
    note = f"{measured.volume_ml:.1f} mL" if measured.found else "nothing found"
    if measured.found and measured.flags:
        note = f"{note} ({', '.join(measured.flags)})"
    for line in finished.assumed:
        queue.record(connection, held.id, queue.TimelineEntry(now, "assume", held.state, line))
    queue.move_job(connection, held, JobEvent.FINISH, (now, note), {"reason": note, "lease_holder": None})
    values = {**asdict(measured), **asdict(measured.conditions), "flags": list(measured.flags), "measured_at": now}
    del values["conditions"]
    if not insert_new(connection, measurements, {"job_id": held.id, **values}):
        connection.execute(update(measurements).where(measurements.c.job_id == held.id).values(values))
    if measured.found:
        notices.note(connection, Cause(Topic.VOLUME_CHANGED, "", job_id=held.id), now)
    made = [result.sop_instance_uid for result in finished.results]
    earlier = (results.c.job_id == held.id) & results.c.sop_instance_uid.not_in(made)
    _cancel_unsent(connection, earlier, "a later edition took its place", now)
    for result in finished.results:
        result_id = _put_result(connection, held.id, result, now)
        for destination in finished.destinations:
            _put_delivery(connection, result_id, destination, now)


def claim(connection: Connection, destination: str, now: datetime, lease_s: float) -> list[Delivery]:
    """Take every delivery of one destination that is due, oldest first, at most a hundred, under a lease.

    What a later revision superseded in the meantime is cancelled instead.
    """
    _cancel_superseded(connection, deliveries.c.destination == destination, now)
    due = (deliveries.c.destination == destination) & (deliveries.c.not_before <= now)
    statement = (
        select(deliveries.c.id)
        .where(due, deliveries.c.state == DeliveryState.PENDING)
        .order_by(deliveries.c.id)
        .limit(100)
        .with_for_update(skip_locked=True)
    )
    keys = list(connection.scalars(statement))
    for key in keys:
        lease = {"lease_until": now + timedelta(seconds=lease_s), "attempts": deliveries.c.attempts + 1}
        settle(connection, key, Outcome(DeliveryEvent.CLAIM, f"to {destination}"), now, lease)
    return [delivery(connection, key) for key in keys]


def is_any_due(connection: Connection, destination: str, now: datetime) -> bool:
    """Whether a delivery of the destination waits to be claimed, or was left by a sender that died."""
    pending = (deliveries.c.state == DeliveryState.PENDING) & (deliveries.c.not_before <= now)
    left = (deliveries.c.state == DeliveryState.SENDING) & (deliveries.c.lease_until < now)
    statement = select(deliveries.c.id).where(deliveries.c.destination == destination, pending | left).limit(1)
    return connection.scalar(statement) is not None


def expire(connection: Connection, destination: str, now: datetime) -> int:
    """Make every delivery of the destination with an outrun lease pending again; returns how many."""
    left = (deliveries.c.destination == destination) & (deliveries.c.lease_until < now)
    statement = select(deliveries.c.id).where(left, deliveries.c.state == DeliveryState.SENDING)
    keys = list(connection.scalars(statement.with_for_update(skip_locked=True)))
    for key in keys:
        outcome = Outcome(DeliveryEvent.EXPIRE, "the sender gave no sign of life")
        settle(connection, key, outcome, now, {"not_before": now})
    return len(keys)


def renew(connection: Connection, delivery_ids: Sequence[int], until: datetime) -> None:
    """Prolong the lease of deliveries that are still to be sent."""
    connection.execute(update(deliveries).where(deliveries.c.id.in_(delivery_ids)).values(lease_until=until))


def settle(
    connection: Connection, delivery_id: int, outcome: Outcome, now: datetime, values: dict[str, Any] | None = None
) -> None:
    """Move a delivery by what became of it, and keep the reason. Raises Unknown or IllegalMove.

    The alarm of its destination is on as long as one of the deliveries there is stuck.
    """
    joined = select(deliveries.c.state, deliveries.c.destination, results.c.job_id).join(results)
    row = connection.execute(joined.where(deliveries.c.id == delivery_id)).one_or_none()
    if row is None:
        raise Unknown(f"there is no delivery {delivery_id}")
    before = DeliveryState(row.state)
    after = move(MOVES, before, outcome.event)
    moved = {"state": after, "reason": outcome.reason, **_marks(outcome.event, now), **(values or {})}
    statement = update(deliveries).where(deliveries.c.id == delivery_id, deliveries.c.state == before)
    if not connection.execute(statement.values(moved)).rowcount:
        raise IllegalMove(f"delivery {delivery_id} is no longer {before}")
    entry = queue.TimelineEntry(now, outcome.event, after, outcome.reason, delivery_id)
    queue.record(connection, row.job_id, entry)
    if before in STUCK or after in STUCK:
        _review(connection, row.destination, outcome.reason, now)


def _marks(event: DeliveryEvent, now: datetime) -> dict[str, Any]:
    """What an event leaves in the row besides state and reason."""
    if event is DeliveryEvent.REQUEUE:
        afresh: dict[str, Any] = {"attempts": 0, "denials": 0, "since": now, "not_before": now}
        return {**afresh, "transaction_uid": None, "report_until": None, "sent_at": None, "confirmed_at": None}
    if event is DeliveryEvent.DENY:
        return {"denials": deliveries.c.denials + 1, "since": now, "transaction_uid": None, "report_until": None}
    if event is DeliveryEvent.ACCEPT:
        return {"sent_at": now, "since": now}
    return {"confirmed_at": now} if event is DeliveryEvent.CONFIRM else {}


def _review(connection: Connection, destination: str, reason: str, now: datetime) -> None:
    there = (deliveries.c.destination == destination) & deliveries.c.state.in_(STUCK)
    count = connection.scalar(select(func.count()).select_from(deliveries).where(there))
    if count:
        text = f"{count} deliveries are parked or failed; the last to move: {reason}"
        watch.raise_alarm(connection, watch.AlarmKind.DELIVERY, destination, text, now)
    else:
        watch.clear_alarm(connection, watch.AlarmKind.DELIVERY, destination, now)


def requeue(connection: Connection, delivery_id: int, reason: str, now: datetime) -> None:
    """Send once more, whatever went before.

    Raises Unknown, IllegalMove where it is being sent, or Refused where retention removed its file.
    """
    settle(connection, delivery_id, Outcome(DeliveryEvent.REQUEUE, reason), now)
    # After the move, which holds retention off until the transaction ends.
    removed = select(results.c.removed_at).join(deliveries).where(deliveries.c.id == delivery_id)
    if connection.scalar(removed) is not None:
        raise Refused(f"delivery {delivery_id}: its file was removed by retention; requeue its job to make it again")


def cancel(connection: Connection, delivery_id: int, reason: str, now: datetime) -> None:
    """Give up what was not sent, for good. Raises Unknown, or IllegalMove where it is being sent or was sent."""
    settle(connection, delivery_id, Outcome(DeliveryEvent.CANCEL, reason), now)


def report_before(connection: Connection, held: Job) -> StoredResult | None:
    """The report of the newest earlier revision of the job's series that has one, sent or not."""
    c = results.c
    earlier = (jobs.c.series_instance_uid == held.series_instance_uid) & (jobs.c.revision < held.revision)
    statement = (
        select(c.sop_class_uid, c.sop_instance_uid, c.series_instance_uid, c.path, c.sha256)
        .join(jobs)
        .where(earlier, c.sop_class_uid.startswith(_REPORTS), c.series_instance_uid != "")
        .order_by(jobs.c.revision.desc(), c.id.desc())
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else StoredResult(*row)


def cancel_superseded(connection: Connection, series_instance_uid: str, now: datetime) -> None:
    """Give up whatever of the superseded revisions of a series was not sent yet."""
    _cancel_superseded(connection, jobs.c.series_instance_uid == series_instance_uid, now)


def _cancel_superseded(connection: Connection, which: ColumnElement[bool], now: datetime) -> None:
    superseded = which & (jobs.c.state == JobState.SUPERSEDED)
    _cancel_unsent(connection, superseded, "a later revision of the series took its place", now)


def _cancel_unsent(connection: Connection, which: ColumnElement[bool], reason: str, now: datetime) -> None:
    unsent = deliveries.c.state.in_((DeliveryState.PENDING, *STUCK))
    statement = (
        select(deliveries.c.id)
        .join_from(deliveries, results)
        .join(jobs)
        .where(which, unsent)
        .with_for_update(of=deliveries, skip_locked=True)
    )
    for key in list(connection.scalars(statement)):
        cancel(connection, key, reason, now)


def delivery(connection: Connection, delivery_id: int) -> Delivery:
    """The delivery with this id, which is there."""
    joined = {**results.c, **deliveries.c}
    statement = select(*(joined[name] for name in Delivery.__dataclass_fields__)).select_from(deliveries.join(results))
    return Delivery(**connection.execute(statement.where(deliveries.c.id == delivery_id)).mappings().one())


def list_deliveries(
    connection: Connection,
    limit: int | None,
    *,
    states: Collection[DeliveryState] = (),
    destination: str | None = None,
    job_id: int | None = None,
    before: int | None = None,
) -> list[ListedDelivery]:
    """The newest deliveries, newest first. limit: None: all. states: none: in any. before: those with a smaller id."""
    joined = {**results.c, **deliveries.c}
    columns = [joined[name] for name in ListedDelivery.__dataclass_fields__]
    statement = select(*columns).select_from(deliveries.join(results)).order_by(deliveries.c.id.desc()).limit(limit)
    if states:
        statement = statement.where(deliveries.c.state.in_(states))
    if destination is not None:
        statement = statement.where(deliveries.c.destination == destination)
    if job_id is not None:
        statement = statement.where(results.c.job_id == job_id)
    if before is not None:
        statement = statement.where(deliveries.c.id < before)
    return [ListedDelivery(**row) for row in connection.execute(statement).mappings()]


def delivery_states(connection: Connection, job_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """For each of the jobs, how many of its deliveries are in which state."""
    statement = (
        select(results.c.job_id, deliveries.c.state, func.count())
        .join(results)
        .where(results.c.job_id.in_(job_ids))
        .group_by(results.c.job_id, deliveries.c.state)
    )
    states: dict[int, dict[str, int]] = {}
    for job_id, state, count in connection.execute(statement):
        states.setdefault(job_id, {})[state] = count
    return states


def _put_result(connection: Connection, job_id: int, result: StoredResult, now: datetime) -> int:
    values = {"job_id": job_id, **asdict(result), "made_at": now}
    same = results.c.sop_instance_uid == result.sop_instance_uid
    if not insert_new(connection, results, values):
        connection.execute(update(results).where(same).values(removed_at=None, **values))
    return int(connection.execute(select(results.c.id).where(same)).scalar_one())


def _put_delivery(connection: Connection, result_id: int, destination: str, now: datetime) -> None:
    fresh = {"state": DeliveryState.PENDING, "reason": "", "attempts": 0, "since": now, "not_before": now}
    if insert_new(connection, deliveries, {"result_id": result_id, "destination": destination, **fresh}):
        return
    there = (deliveries.c.result_id == result_id) & (deliveries.c.destination == destination)
    idle = connection.scalar(select(deliveries.c.id).where(there, deliveries.c.state != DeliveryState.SENDING))
    if idle is not None:
        requeue(connection, idle, "measured again", now)

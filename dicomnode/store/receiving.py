"""Instances as they were received, and the series that wait for a job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from dicomnode.arrivals import HEADERS, Arrival, StoredInstance
from dicomnode.routing import ImageFacts
from dicomnode.store import queue, watch
from dicomnode.store.queue import CONFLICT
from dicomnode.store.upsert import insert_new
from dicomnode.tables import instances, pulls, results, series


@dataclass(frozen=True)
class KnownInstance:
    """What is stored under a UID. path: relative to the archive. is_removed: its file is no longer there."""

    series_instance_uid: str
    sha256: str
    transfer_syntax_uid: str
    path: str
    is_removed: bool


@dataclass(frozen=True)
class SourceImage:
    """An instance that a job covers. path: relative to the archive."""

    path: str
    facts: ImageFacts


def find(connection: Connection, sop_instance_uid: str) -> KnownInstance | None:
    """The instance as first received, or None: none came under this UID."""
    c = instances.c
    statement = select(c.series_instance_uid, c.sha256, c.transfer_syntax_uid, c.path, c.removed_at.is_not(None))
    row = connection.execute(statement.where(c.sop_instance_uid == sop_instance_uid)).one_or_none()
    return None if row is None else KnownInstance(*row)


def remember(connection: Connection, instance: StoredInstance) -> bool:
    """Index a stored instance; False where another association was faster with the same UID."""
    expected_by = HEADERS if instance.expected_instances else ""
    is_first = insert_new(
        connection,
        series,
        {
            "series_instance_uid": instance.series_instance_uid,
            "study_instance_uid": instance.study_instance_uid,
            "patient_id": instance.patient.id,
            "issuer_of_patient_id": instance.patient.issuer,
            "acquired_at": instance.acquired_at,
            "expected_instances": instance.expected_instances,
            "expected_by": expected_by,
            **asdict(instance.labels),
        },
    )
    if is_first:
        expect_pulled(connection, instance.series_instance_uid)
    columns = {c.name for c in instances.columns} - {"id", "removed_at"}
    if not insert_new(connection, instances, {name: getattr(instance, name) for name in columns}):
        return False
    uid = series.c.series_instance_uid == instance.series_instance_uid
    connection.execute(update(series).where(uid, series.c.waiting.is_(False)).values(waiting=True))
    if instance.expected_instances:
        c = series.c
        less = c.expected_instances.is_(None) | (
            (c.expected_by == HEADERS) & (c.expected_instances < instance.expected_instances)
        )
        more = {"expected_instances": instance.expected_instances, "expected_by": expected_by}
        connection.execute(update(series).where(uid, less).values(more))
    return True


def expect_pulled(connection: Connection, series_instance_uid: str) -> None:
    """Of a series that a rule found in an archive, expect as many instances as that said it has."""
    same = pulls.c.series_instance_uid == series_instance_uid
    statement = select(pulls.c.source, pulls.c.instances).where(same, pulls.c.instances.is_not(None)).limit(1)
    if row := connection.execute(statement).one_or_none():
        expected = {"expected_instances": row.instances, "expected_by": f"the archive {row.source}"}
        connection.execute(update(series).where(series.c.series_instance_uid == series_instance_uid).values(expected))


def repeat(connection: Connection, instance: StoredInstance) -> bool:
    """Note that an instance came again; a series that waits stays open.

    True: its file was removed, and has to be written again before the transaction ends, which holds retention off.
    """
    c = instances.c
    removed = (c.sop_instance_uid == instance.sop_instance_uid) & c.removed_at.is_not(None)
    again = {"path": instance.path, "size_bytes": instance.size_bytes, "received_at": instance.received_at}
    is_back = bool(connection.execute(update(instances).where(removed).values(removed_at=None, **again)).rowcount)
    waits = (series.c.series_instance_uid == instance.series_instance_uid) & series.c.waiting.is_(True)
    connection.execute(update(series).where(waits).values(repeated_at=instance.received_at))
    return is_back


def record_conflict(connection: Connection, known: KnownInstance, instance: StoredInstance) -> None:
    """Keep that other content came under the UID of a stored instance: once of each sender and instance.

    It stands among the refusals, and on the timeline of the series' newest job; a job that is made later tells it too.
    """
    sender, uid, now = instance.calling_ae, instance.sop_instance_uid, instance.received_at
    if watch.has_refused(connection, CONFLICT, sender, uid):
        return
    reason = "other content is stored under this UID and kept"
    watch.record_refusal(connection, watch.Refusal(now, CONFLICT, sender, "", uid, reason))
    newest = queue.newest(connection, known.series_instance_uid)
    if newest is not None:
        note = f"{sender} sent other content under the UID of an instance of this series; the first is kept"
        queue.record(connection, newest.id, queue.TimelineEntry(now, CONFLICT, newest.state, note))


def stored_paths(connection: Connection) -> set[str]:
    """The path of every indexed instance and result, relative to the archive."""
    return {*connection.scalars(select(instances.c.path)), *connection.scalars(select(results.c.path))}


def arrivals(connection: Connection) -> list[Arrival]:
    """The series with instances that no job covers yet."""
    s, i = series.c, instances.c
    last, received_at = func.max(i.id), func.max(i.received_at)
    statement = (
        select(
            *s,
            last.label("last"),
            received_at.label("received_at"),
            func.count(i.id).label("total"),
            func.count(i.removed_at).label("gone"),
        )
        .join_from(series, instances)
        .where(s.waiting.is_(True))
        .group_by(*s)
        .having(last > s.covered_until)
    )
    return [_arrival(row) for row in connection.execute(statement)]


def _arrival(row: Row[*tuple[Any, ...]]) -> Arrival:
    return Arrival(
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        last_instance_id=row.last,
        last_received_at=max(row.received_at, row.repeated_at or row.received_at),
        instance_count=row.total,
        removed_count=row.gone,
        expected_instances=row.expected_instances,
        expected_by=row.expected_by,
        is_asked=row.asked_until >= row.last,
    )


def note_count(connection: Connection, arrival: Arrival, count: int | None, source: str) -> None:
    """Keep what an archive answered for an arrival; count: None where it does not know the series.

    An archive that has fewer than are here has not got all of them itself yet: its word counts nothing.
    """
    values: dict[str, Any] = {"asked_until": arrival.last_instance_id}
    if count is not None and count >= arrival.instance_count:
        values |= {"expected_instances": count, "expected_by": source}
    connection.execute(update(series).where(series.c.series_instance_uid == arrival.series_instance_uid).values(values))


def images(connection: Connection, series_instance_uid: str, last_instance_id: int) -> list[SourceImage]:
    """The instances of a series up to and with the given id, in order of arrival."""
    c = instances.c
    statement = (
        select(c.path, c.sop_class_uid, c.modality, c.image_type, c.image_orientation)
        .where(c.series_instance_uid == series_instance_uid, c.id <= last_instance_id)
        .order_by(c.id)
    )
    return [SourceImage(row.path, ImageFacts(*row[1:])) for row in connection.execute(statement)]

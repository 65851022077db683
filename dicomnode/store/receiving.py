"""Instances as they were received, and the series that wait for a job."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from dicomnode.arrivals import Arrival, StoredInstance
from dicomnode.routing import ImageFacts
from dicomnode.store.upsert import insert_new
from dicomnode.tables import instances, results, series


@dataclass(frozen=True)
class SourceImage:
    """An instance that a job covers. path: relative to the archive."""

    path: str
    facts: ImageFacts


def digest_of_instance(connection: Connection, sop_instance_uid: str) -> str | None:
    """The SHA-256 of the instance as first received, or None: it is not stored."""
    return connection.scalar(select(instances.c.sha256).where(instances.c.sop_instance_uid == sop_instance_uid))


def remember(connection: Connection, instance: StoredInstance) -> bool:
    """Index a stored instance; False where another association was faster with the same UID."""
    insert_new(
        connection,
        series,
        {
            "series_instance_uid": instance.series_instance_uid,
            "study_instance_uid": instance.study_instance_uid,
            "patient_id": instance.patient.id,
            "issuer_of_patient_id": instance.patient.issuer,
            "acquired_at": instance.acquired_at,
        },
    )
    columns = {c.name for c in instances.columns} - {"id", "removed_at"}
    if not insert_new(connection, instances, {name: getattr(instance, name) for name in columns}):
        return False
    connection.execute(
        update(series)
        .where(series.c.series_instance_uid == instance.series_instance_uid, series.c.waiting.is_(False))
        .values(waiting=True)
    )
    return True


def stored_paths(connection: Connection) -> set[str]:
    """The path of every indexed instance and result, relative to the archive."""
    return {*connection.scalars(select(instances.c.path)), *connection.scalars(select(results.c.path))}


def arrivals(connection: Connection) -> list[Arrival]:
    """The series with instances that no job covers yet."""
    keys = (instances.c.series_instance_uid, series.c.study_instance_uid)
    statement = (
        select(*keys, func.max(instances.c.id), func.max(instances.c.received_at))
        .join(series)
        .where(series.c.waiting.is_(True), instances.c.id > series.c.covered_until)
        .group_by(*keys)
    )
    return [Arrival(*row) for row in connection.execute(statement)]


def images(connection: Connection, series_instance_uid: str, last_instance_id: int) -> list[SourceImage]:
    """The instances of a series up to and with the given id, in order of arrival."""
    c = instances.c
    statement = (
        select(c.path, c.sop_class_uid, c.modality, c.image_type, c.image_orientation)
        .where(c.series_instance_uid == series_instance_uid, c.id <= last_instance_id)
        .order_by(c.id)
    )
    return [SourceImage(row.path, ImageFacts(*row[1:])) for row in connection.execute(statement)]

"""What a report says of earlier volumes: the reports they stand in, and the editions of one report."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from dicomnode.history import Conditions, VolumePoint
from dicomnode.jobs import Job
from dicomnode.tables import jobs, prior_reports, results, series

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."  # what the UIDs of all SR storage classes begin with (PS3.4 B.5)


@dataclass(frozen=True)
class FoundReport:
    """A report on a series, made here or found in an archive. basis: what it rests on, see `recollection.basis`."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    basis: str = ""


def unmeasured(connection: Connection, held: Job, now: datetime) -> VolumePoint:
    """The place of a job in the history of its patient, without a measurement yet."""
    c = series.c
    columns = (c.patient_id, c.issuer_of_patient_id, c.study_instance_uid, c.acquired_at)
    row = connection.execute(select(*columns).where(c.series_instance_uid == held.series_instance_uid)).one()
    return VolumePoint(
        job_id=held.id,
        series_instance_uid=held.series_instance_uid,
        revision=held.revision,
        volume_ml=None,
        confidence=None,
        flags=(),
        model_name="",
        model_version="",
        model_sha256="",
        repeatability_percent=None,
        conditions=Conditions(),
        measured_at=now,
        **row._mapping,
    )


def editions(connection: Connection, job_id: int) -> list[FoundReport]:
    """The reports that a job made, in the order in which they were first made: one, unless it was run again."""
    c = results.c
    columns = (series.c.study_instance_uid, c.series_instance_uid, c.sop_class_uid, c.sop_instance_uid, c.basis)
    statement = select(*columns).join_from(results, jobs).join(series)
    statement = statement.where(c.job_id == job_id, c.sop_class_uid.startswith(_REPORTS)).order_by(c.id)
    return [FoundReport(*row) for row in connection.execute(statement)]


def reports(connection: Connection, points: Collection[VolumePoint]) -> dict[VolumePoint, FoundReport]:
    """For each of the points the report that it stands in; those of which none is known are left out."""
    found = {}
    for point in points:
        report = _found(connection, point) if point.job_id is None else _made(connection, point.job_id)
        if report is not None:
            found[point] = report
    return found


def _made(connection: Connection, job_id: int) -> FoundReport | None:
    made = editions(connection, job_id)
    return made[-1] if made and made[-1].series_instance_uid else None


def _found(connection: Connection, point: VolumePoint) -> FoundReport | None:
    c = prior_reports.c
    columns = (c.study_instance_uid, c.report_series_instance_uid, c.sop_class_uid, c.sop_instance_uid)
    same = (c.series_instance_uid == point.series_instance_uid) & (c.measured_at == point.measured_at)
    row = connection.execute(select(*columns).where(same, c.revision == point.revision).limit(1)).one_or_none()
    return None if row is None else FoundReport(*row)

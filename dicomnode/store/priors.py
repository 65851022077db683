"""Earlier volumes: the reports they stand in, the editions of one report, and what archives hold of before."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, select, update

from dicomnode.arrivals import Patient
from dicomnode.history import Conditions, VolumePoint
from dicomnode.jobs import Job
from dicomnode.store.upsert import insert_new
from dicomnode.tables import jobs, prior_reports, prior_searches, results, series
from pipeline.reports import ReadReport

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


def next_patient(connection: Connection, now: datetime) -> Patient | None:
    """A patient of whom series came and for whom the archive is still to be asked; None: there is nobody."""
    s, c = series.c, prior_searches.c
    theirs = (c.patient_id == s.patient_id) & (c.issuer_of_patient_id == s.issuer_of_patient_id)
    due = c.patient_id.is_(None) | (c.asked_at.is_(None) & (c.not_before <= now))
    statement = select(s.patient_id, s.issuer_of_patient_id).outerjoin_from(series, prior_searches, theirs)
    row = connection.execute(statement.where(s.patient_id != "", due).limit(1)).one_or_none()
    return None if row is None else Patient(*row)


def begin_search(connection: Connection, patient: Patient, until: datetime) -> int:
    """Take note that the archive is asked for a patient, which nobody else does before `until`; the attempts by now."""
    fresh = {"attempts": 0, "not_before": until, "outcome": ""}
    insert_new(connection, prior_searches, {**_key(patient), **fresh})
    mark = update(prior_searches).where(_is(patient)).values(attempts=prior_searches.c.attempts + 1, not_before=until)
    return connection.execute(mark.returning(prior_searches.c.attempts)).scalar_one()


def end_search(connection: Connection, patient: Patient, outcome: str, now: datetime) -> None:
    """The archive has answered."""
    connection.execute(update(prior_searches).where(_is(patient)).values(asked_at=now, outcome=outcome))


def put_off_search(connection: Connection, patient: Patient, outcome: str, until: datetime) -> None:
    """The archive did not answer; it is asked again."""
    connection.execute(update(prior_searches).where(_is(patient)).values(not_before=until, outcome=outcome))


def put_reports(connection: Connection, found: Collection[ReadReport], source: str, now: datetime) -> int:
    """Keep what the reports of a patient tell; of the editions of one the last. Returns how many are new."""
    replaced = {uid for report in found for uid in report.predecessors}
    revisions = {(one.series_instance_uid, one.revision) for one in found if one.sop_instance_uid not in replaced}
    new = 0
    for one in found:
        if one.sop_instance_uid in replaced and (one.series_instance_uid, one.revision) in revisions:
            connection.execute(delete(prior_reports).where(prior_reports.c.sop_instance_uid == one.sop_instance_uid))
            continue
        values = {name: getattr(one, name) for name in ReadReport.__dataclass_fields__}
        del values["predecessors"]
        values |= {"acquired_at": values.pop("studied_at"), "flags": [str(flag) for flag in one.flags]}
        new += insert_new(connection, prior_reports, {**values, "source": source, "found_at": now})
    return new


def _key(patient: Patient) -> dict[str, str]:
    return {"patient_id": patient.id, "issuer_of_patient_id": patient.issuer}


def _is(patient: Patient) -> ColumnElement[bool]:
    c = prior_searches.c
    return (c.patient_id == patient.id) & (c.issuer_of_patient_id == patient.issuer)

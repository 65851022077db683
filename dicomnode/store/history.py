"""The volumes of a patient, and what people corrected: results marked invalid, patients merged. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, or_, select, tuple_, update

from dicomnode.arrivals import Patient
from dicomnode.errors import Refused
from dicomnode.history import Conditions, VolumePoint
from dicomnode.jobs import JobState
from dicomnode.store import Unknown, queue
from dicomnode.tables import invalidations, jobs, measurements, merges, prior_reports, series

INVALIDATE, RESTORE = "invalidate", "restore"
"""Events on a job's timeline."""


@dataclass(frozen=True)
class Act:
    """What a person says of a correction. by: who; reason: why, never empty (ValueError)."""

    by: str
    reason: str
    at: datetime

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.reason.strip():
            raise ValueError("a correction needs a person and a reason")


@dataclass(frozen=True)
class KnownPatient:
    """A patient with measurements. name: of the series that came last. merged_into: whom the measurements count for.

    job_id: one of their jobs.
    """

    patient: Patient
    job_id: int
    name: str
    sex: str
    birth_date: str
    series_count: int
    last_acquired_at: str
    merged_into: Patient | None


@dataclass(frozen=True)
class Merge:
    """That one patient counts as another, by whom and why; and, where it was undone, by whom and why."""

    id: int
    patient: Patient
    into: Patient
    act: Act
    undone: Act | None


def points(connection: Connection, patient: Patient) -> list[VolumePoint]:
    """Every measurement of a patient and of those merged with it, in any standing; none of an empty PatientID.

    What reports in archives say of series that this node measured itself is left out.
    """
    if not patient.id:
        return []
    family = [(one.id, one.issuer) for one in everyone(connection, patient)]
    c = series.c
    own = list(_own_points(connection, tuple_(c.patient_id, c.issuer_of_patient_id).in_(family)))
    c = prior_reports.c
    found = _reported_points(connection, tuple_(c.patient_id, c.issuer_of_patient_id).in_(family))
    return [*own, *_not_measured_here(found, own)]


def of_job(connection: Connection, job_id: int) -> VolumePoint | None:
    """What a job measured, whosever it is; None where it measured nothing."""
    return next(_own_points(connection, jobs.c.id == job_id), None)


def all_points(connection: Connection) -> dict[Patient, list[VolumePoint]]:
    """Every measurement of everybody with a PatientID, by whom it counts for."""
    own = list(_own_points(connection, series.c.patient_id != ""))
    found = _reported_points(connection, prior_reports.c.patient_id != "")
    roots = _links(connection)
    cohort: dict[Patient, list[VolumePoint]] = {}
    for point in [*own, *_not_measured_here(found, own)]:
        patient = Patient(point.patient_id, point.issuer_of_patient_id)
        cohort.setdefault(_root(roots, patient), []).append(point)
    return cohort


def issuers(connection: Connection, patient_id: str) -> list[str]:
    """Who gave this PatientID, of those with measurements here or in reports of archives."""
    own = select(series.c.issuer_of_patient_id).join_from(measurements, jobs).join(series)
    own = own.where(series.c.patient_id == patient_id)
    c = prior_reports.c
    found = select(c.issuer_of_patient_id).where(c.patient_id == patient_id)
    return sorted({*connection.scalars(own), *connection.scalars(found)}) if patient_id else []


def patients(connection: Connection, search: str, limit: int) -> list[KnownPatient]:
    """Those with measurements whose PatientID or name holds the text, in capitals or not; the latest to be acquired
    first.
    """
    c = series.c
    newest = func.max(c.acquired_at)
    statement = (
        select(
            c.patient_id,
            c.issuer_of_patient_id,
            newest,
            func.count(c.series_instance_uid.distinct()),
            func.max(jobs.c.id),
        )
        .join_from(measurements, jobs)
        .join(series)
        .where(c.patient_id != "")
        .group_by(c.patient_id, c.issuer_of_patient_id)
        .order_by(newest.desc(), c.patient_id, c.issuer_of_patient_id)
        .limit(limit)
    )
    if search:
        wanted = (column.icontains(search, autoescape=True) for column in (c.patient_id, c.patient_name))
        statement = statement.where(or_(*wanted))
    links = _links(connection)
    known = []
    for patient_id, issuer, last, count, job_id in connection.execute(statement).all():
        patient = Patient(patient_id, issuer)
        labels = (c.patient_name, c.patient_sex, c.patient_birth_date)
        theirs = (c.patient_id == patient_id) & (c.issuer_of_patient_id == issuer)
        row = connection.execute(select(*labels).where(theirs).order_by(c.acquired_at.desc()).limit(1)).one()
        root = _root(links, patient)
        known.append(KnownPatient(patient, job_id, *row, count, last, None if root == patient else root))
    return known


def invalidate(connection: Connection, job_id: int, act: Act) -> None:
    """Mark what a job measured as invalid; it stays, but no longer counts.

    Raises Unknown where the job measured nothing, Refused where it is invalid already.
    """
    job = queue.job(connection, job_id)
    if connection.scalar(select(measurements.c.job_id).where(measurements.c.job_id == job_id)) is None:
        raise Unknown(f"job {job_id} has no result")
    if connection.scalar(select(invalidations.c.id).where(_in_force(job_id))) is not None:
        raise Refused(f"the result of job {job_id} is marked as invalid already")
    connection.execute(insert(invalidations).values(job_id=job_id, **asdict(act)))
    queue.record(connection, job_id, queue.TimelineEntry(act.at, INVALIDATE, job.state, f"{act.by}: {act.reason}"))


def restore(connection: Connection, job_id: int, act: Act) -> None:
    """Lift the mark. Raises Unknown for no job, Refused where its result is not marked."""
    job = queue.job(connection, job_id)
    lifted = {"lifted_reason": act.reason, "lifted_by": act.by, "lifted_at": act.at}
    if not connection.execute(update(invalidations).where(_in_force(job_id)).values(lifted)).rowcount:
        raise Refused(f"the result of job {job_id} is not marked as invalid")
    queue.record(connection, job_id, queue.TimelineEntry(act.at, RESTORE, job.state, f"{act.by}: {act.reason}"))


def merge(connection: Connection, patient: Patient, into: Patient, act: Act) -> int:
    """Let a patient's measurements count for another patient; returns the merge's id.

    Raises Refused where either has no PatientID, it is merged already, or the other one counts for this one.
    """
    if not patient.id or not into.id:
        raise Refused("a patient without a PatientID cannot be merged")
    links = _links(connection)
    if patient in links:
        raise Refused("this patient is merged already; undo that first")
    if _root(links, into) == patient:
        raise Refused("a patient cannot be merged into itself, nor into one that counts for it")
    of_both = {
        "patient_id": patient.id,
        "issuer_of_patient_id": patient.issuer,
        "into_patient_id": into.id,
        "into_issuer_of_patient_id": into.issuer,
    }
    added = connection.execute(insert(merges).values(**of_both, **asdict(act)).returning(merges.c.id))
    return added.scalar_one()


def unmerge(connection: Connection, patient: Patient, act: Act) -> Merge:
    """Let a merged patient's measurements count for itself again; returns what was undone. Raises Refused."""
    c = merges.c
    theirs = (c.patient_id == patient.id) & (c.issuer_of_patient_id == patient.issuer) & c.undone_at.is_(None)
    key = connection.scalar(select(c.id).where(theirs))
    if key is None:
        raise Refused("this patient is not merged")
    undone = {"undone_reason": act.reason, "undone_by": act.by, "undone_at": act.at}
    connection.execute(update(merges).where(c.id == key).values(undone))
    return next(one for one in list_merges(connection, every=True) if one.id == key)


def list_merges(connection: Connection, *, every: bool = False) -> list[Merge]:
    """The merges in force, or all that ever were, newest first."""
    statement = select(merges).order_by(merges.c.id.desc())
    if not every:
        statement = statement.where(merges.c.undone_at.is_(None))
    return [_merge(row) for row in connection.execute(statement)]


def everyone(connection: Connection, patient: Patient) -> list[Patient]:
    """The patient and all whose measurements count for the same one, that one first."""
    links = _links(connection)
    root = _root(links, patient)
    return [root, *sorted((one for one in links if _root(links, one) == root), key=lambda one: (one.id, one.issuer))]


def _links(connection: Connection) -> dict[Patient, Patient]:
    return {one.patient: one.into for one in list_merges(connection)}


def _root(links: dict[Patient, Patient], patient: Patient) -> Patient:
    """Whom a patient counts for; merges never form a circle."""
    while patient in links:
        patient = links[patient]
    return patient


def _merge(row: Row[Any]) -> Merge:
    undone = Act(row.undone_by, row.undone_reason, row.undone_at) if row.undone_at else None
    patient = Patient(row.patient_id, row.issuer_of_patient_id)
    into = Patient(row.into_patient_id, row.into_issuer_of_patient_id)
    return Merge(row.id, patient, into, Act(row.by, row.reason, row.at), undone)


def _in_force(job_id: int) -> ColumnElement[bool]:
    return (invalidations.c.job_id == job_id) & invalidations.c.lifted_at.is_(None)


_OF_THE_POINT = ("volume_ml", "confidence", "flags", "model_name", "model_version", "model_sha256", "measured_at")


def _own_points(connection: Connection, which: ColumnElement[bool]) -> Iterator[VolumePoint]:
    m, s, mark = measurements.c, series.c, invalidations.c
    statement = (
        select(
            jobs.c.id, jobs.c.revision, (jobs.c.state == JobState.SUPERSEDED).label("superseded"),
            s.patient_id, s.issuer_of_patient_id, s.study_instance_uid, s.series_instance_uid, s.acquired_at,
            m.found, m.repeatability_percent, *(m[name] for name in _OF_THE_POINT),
            *(m[name] for name in Conditions.__dataclass_fields__),
            mark.reason, mark.by, mark.at,
        )
        .join_from(measurements, jobs)
        .join(series)
        .outerjoin(invalidations, (mark.job_id == jobs.c.id) & mark.lifted_at.is_(None))
        .where(which)
    )  # fmt: skip
    for row in connection.execute(statement).mappings():
        yield VolumePoint(
            job_id=row["id"],
            patient_id=row["patient_id"],
            issuer_of_patient_id=row["issuer_of_patient_id"],
            study_instance_uid=row["study_instance_uid"],
            series_instance_uid=row["series_instance_uid"],
            revision=row["revision"],
            acquired_at=row["acquired_at"],
            repeatability_percent=row["repeatability_percent"],
            conditions=Conditions(**{name: row[name] for name in Conditions.__dataclass_fields__}),
            superseded=row["superseded"],
            invalid="" if row["by"] is None else f"{row['reason']} ({row['by']}, {row['at']:%Y-%m-%d})",
            **_measured(row, found=row["found"]),
        )


def _measured(row: Any, *, found: bool = True) -> dict[str, Any]:
    values = {name: row[name] for name in _OF_THE_POINT if name in row}
    return {**values, "flags": tuple(row["flags"]), "volume_ml": row["volume_ml"] if found else None}


def _reported_points(connection: Connection, which: ColumnElement[bool]) -> list[VolumePoint]:
    c = prior_reports.c
    of_the_series = ("patient_id", "issuer_of_patient_id", "study_instance_uid", "series_instance_uid", "acquired_at")
    statement = select(prior_reports).where(which).order_by(c.series_instance_uid, c.revision, c.measured_at)
    return [
        VolumePoint(
            job_id=None,
            revision=row["revision"],
            confidence=None,
            repeatability_percent=None,
            conditions=Conditions(),
            source=row["source"],
            **{name: row[name] for name in of_the_series},
            **_measured(row),
        )
        for row in connection.execute(statement).mappings()
    ]


def _not_measured_here(found: Sequence[VolumePoint], own: Sequence[VolumePoint]) -> Iterator[VolumePoint]:
    """What only archives know; of each series the last report counts."""
    known = {point.series_instance_uid for point in own}
    last = {point.series_instance_uid: point for point in found}
    for point in found:
        if point.series_instance_uid not in known:
            yield replace(point, superseded=point is not last[point.series_instance_uid])

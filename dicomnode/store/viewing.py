"""What is shown of a series beside its measurement: whose it is, and where its images and its mask lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from dicomnode.arrivals import Patient
from dicomnode.jobs import Job
from dicomnode.tables import instances, results, series

_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_LABELLED = select(
    series.c.patient_id, series.c.issuer_of_patient_id, series.c.patient_name, series.c.patient_sex,
    series.c.patient_birth_date, series.c.study_description, series.c.series_description, series.c.acquired_at,
)  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """What people recognise a series by; empty where its images do not say."""

    patient: Patient
    name: str = ""
    sex: str = ""
    birth_date: str = ""
    study_description: str = ""
    series_description: str = ""
    acquired_at: str = ""


@dataclass(frozen=True)
class Sources:
    """The files of a job, relative to the archive.

    segmentation: that of the last run that made one, None: no run did. removed: how many of all these files are gone.
    """

    images: tuple[str, ...]
    segmentation: str | None
    removed: int


def labels(connection: Connection, series_instance_uid: str) -> Labels:
    """Of a series that is known."""
    return _labels(connection.execute(_LABELLED.where(series.c.series_instance_uid == series_instance_uid)).one())


def labels_of(connection: Connection, patient: Patient) -> Labels:
    """Of the series of a patient that was acquired last; without any there is nothing but the PatientID."""
    c = series.c
    theirs = (c.patient_id == patient.id) & (c.issuer_of_patient_id == patient.issuer)
    last = _LABELLED.where(theirs).order_by(c.acquired_at.desc()).limit(1)
    row = connection.execute(last).one_or_none()
    return Labels(patient) if row is None else _labels(row)


def _labels(row: Row[*tuple[Any, ...]]) -> Labels:
    patient_id, issuer, *texts = tuple(row)
    return Labels(Patient(patient_id, issuer), *texts)


def sources(connection: Connection, job: Job) -> Sources:
    """Of a job in any state."""
    c = instances.c
    covered = (c.series_instance_uid == job.series_instance_uid) & (c.id <= job.last_instance_id)
    images = tuple(connection.scalars(select(c.path).where(covered).order_by(c.id)))
    removed = connection.scalar(select(func.count(c.removed_at)).where(covered)) or 0
    r = results.c
    masks = select(r.path, r.removed_at).where(r.job_id == job.id, r.sop_class_uid == _SEG)
    row = connection.execute(masks.order_by(r.made_at.desc().nulls_last(), r.id.desc()).limit(1)).one_or_none()
    if row is None:
        return Sources(images, None, removed)
    return Sources(images, row.path, removed + (row.removed_at is not None))

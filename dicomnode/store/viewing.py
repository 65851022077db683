"""What is shown of a series beside its measurement: whose it is, and where its images and its mask lie."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from dicomnode.arrivals import Patient
from dicomnode.jobs import Job
from dicomnode.tables import instances, results, series

_SEG = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True)
class Labels:
    """What people recognise a series by; empty where its images do not say."""

    patient: Patient
    name: str
    sex: str
    birth_date: str
    study_description: str
    series_description: str
    acquired_at: str


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
    c = series.c
    theirs = (c.patient_name, c.patient_sex, c.patient_birth_date, c.study_description, c.series_description)
    statement = select(c.patient_id, c.issuer_of_patient_id, *theirs, c.acquired_at)
    patient_id, issuer, *texts = connection.execute(statement.where(c.series_instance_uid == series_instance_uid)).one()
    return Labels(Patient(patient_id, issuer), *texts)


def sources(connection: Connection, job: Job) -> Sources:
    """Of a job in any state."""
    c = instances.c
    covered = (c.series_instance_uid == job.series_instance_uid) & (c.id <= job.last_instance_id)
    images = tuple(connection.scalars(select(c.path).where(covered).order_by(c.id)))
    removed = connection.scalar(select(func.count(c.removed_at)).where(covered)) or 0
    r = results.c
    masks = select(r.path, r.removed_at).where(r.job_id == job.id, r.sop_class_uid == _SEG).order_by(r.id.desc())
    row = connection.execute(masks.limit(1)).one_or_none()
    if row is None:
        return Sources(images, None, removed)
    return Sources(images, row.path, removed + (row.removed_at is not None))

"""Whose studies jobs and files are about: for the audit trail alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from dicomnode.arrivals import Patient
from dicomnode.tables import jobs, series


@dataclass(frozen=True)
class Subject:
    """A study and its patient."""

    study_instance_uid: str
    patient: Patient


def of_jobs(connection: Connection, job_ids: Collection[int]) -> dict[int, Subject]:
    """The subject of each of the jobs."""
    s = series.c
    statement = select(jobs.c.id, s.study_instance_uid, s.patient_id, s.issuer_of_patient_id).join(series)
    rows = connection.execute(statement.where(jobs.c.id.in_(job_ids)))
    return {job_id: Subject(study_uid, Patient(patient_id, issuer)) for job_id, study_uid, patient_id, issuer in rows}


def everything(connection: Connection) -> list[Subject]:
    """Every study that the database names."""
    s = series.c
    statement = select(s.study_instance_uid, s.patient_id, s.issuer_of_patient_id).distinct()
    return [Subject(study_uid, Patient(*patient)) for study_uid, *patient in connection.execute(statement)]

"""Measurements of patients in a database, without images."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dicomnode.arrivals import Labels, Patient, StoredInstance
from dicomnode.database import Connection
from dicomnode.history import Conditions
from dicomnode.store import history, outbox, queue, receiving
from dicomnode.store.history import Act

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ACT = Act("reader", "outlined the stomach", NOW)
CONDITIONS = Conditions("Siemens", "Force", "Br40", "portal-venous", 3.0)


def add_measurement(
    connection: Connection, patient: Patient, series: str, acquired_at: str, volume_ml: float | None, **other: Any
) -> int:
    """A series of one image and its job, done; returns the job's id.

    other: `patient_name`, or fields of `outbox.Measured`. volume_ml: None: nothing was found.
    """
    labels = Labels(patient_name=other.pop("patient_name", ""))
    uid = f"1.2.840.{series}"
    head = (f"{uid}.9", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", uid, f"{uid}.1", patient, "CT")
    tail = ("AXIAL", "1\\0\\0\\0\\1\\0", acquired_at, f"received/{series}.dcm", 10, "b" * 64, "SENDER", NOW)
    receiving.remember(connection, StoredInstance(*head, *tail, labels=labels))
    (arrival,) = (one for one in receiving.arrivals(connection) if one.series_instance_uid == uid)
    job_id = queue.add_job(connection, arrival, "", NOW)
    held = queue.claim(connection, "A", NOW, 60.0)
    assert held is not None
    assert held.id == job_id
    values: dict[str, Any] = {"flags": (), "model_name": "m", "model_version": "1", "model_sha256": "a" * 64}
    values |= {"conditions": CONDITIONS, **other}
    measured = outbox.Measured(found=volume_ml is not None, volume_ml=volume_ml or 0.0, confidence=0.9, **values)
    outbox.finish(connection, held, outbox.Finished(measured, (), (), ()), NOW)
    return job_id


def add_five_studies(connection: Connection, patient: Patient) -> list[int]:
    """Five studies that came out of order, by two models, one invalid, one a lower bound; the jobs in that order."""
    studies: list[tuple[str, str, float, dict[str, Any]]] = [
        ("5.4", "20220101080000", 50.0, {"flags": ("touches-border",)}),
        ("5.1", "20190101080000", 80.0, {}),
        ("5.5", "20230101080000", 60.0, {"model_version": "2", "model_sha256": "b" * 64}),
        ("5.3", "20210101080000", 20.0, {}),
        ("5.2", "20200101080000", 84.0, {}),
    ]
    made = [add_measurement(connection, patient, uid, at, ml, **other) for uid, at, ml, other in studies]
    history.invalidate(connection, made[3], ACT)
    return made

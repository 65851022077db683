"""What counts in the history of a patient, for tests."""

from __future__ import annotations

from dicomnode.arrivals import Patient
from dicomnode.database import Connection
from dicomnode.history import Standing, VolumePoint, timeline
from dicomnode.sections import HistorySettings
from dicomnode.store import history


def counting(connection: Connection, patient_id: str, issuer: str = "") -> list[VolumePoint]:
    """The points that count, in order of acquisition."""
    entries = timeline(history.points(connection, Patient(patient_id, issuer)), HistorySettings())
    return [entry.point for entry in entries if entry.standing is Standing.COUNTS]

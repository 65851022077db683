"""A patient's volumes over time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class VolumePoint:
    """One measured volume.

    acquired_at: `YYYYMMDDHHMMSS`, possibly shorter. flags: names of the quality checks that spoke.
    """

    study_instance_uid: str
    series_instance_uid: str
    revision: int
    acquired_at: str
    issuer_of_patient_id: str
    volume_ml: float
    confidence: float
    flags: tuple[str, ...]
    model_name: str
    model_version: str
    model_sha256: str


def order(points: Iterable[VolumePoint]) -> list[VolumePoint]:
    """The current points in acquisition order: of each series only the latest revision."""
    latest: dict[str, VolumePoint] = {}
    for point in points:
        known = latest.get(point.series_instance_uid)
        if known is None or point.revision > known.revision:
            latest[point.series_instance_uid] = point
    return sorted(latest.values(), key=lambda point: (point.acquired_at, point.series_instance_uid))

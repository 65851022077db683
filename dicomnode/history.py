"""A patient's volumes over time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class VolumePoint:
    """One measured volume.

    acquired_at: `YYYYMMDDHHMMSS`, possibly shorter. flags: names of the quality checks that spoke.
    superseded: a later revision took its place, whether that one could be measured or not.
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
    superseded: bool = False


def order(points: Iterable[VolumePoint], *, with_superseded: bool = False) -> list[VolumePoint]:
    """The current points in acquisition order, at most one of each series; or all, revision after revision."""
    shown = (point for point in points if with_superseded or not point.superseded)
    return sorted(shown, key=lambda point: (point.acquired_at, point.series_instance_uid, point.revision))

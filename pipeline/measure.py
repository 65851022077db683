"""Segmentation -> Measurement, with what a reader must know about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.volume import Segmentation, Volume


class Flag(StrEnum):
    """Why a measurement is not what it seems."""

    NOTHING_FOUND = "nothing-found"
    TOUCHES_BORDER = "touches-border"

    @property
    def meaning(self) -> str:
        """One sentence for the report."""
        return _MEANINGS[self]


_MEANINGS = {
    Flag.NOTHING_FOUND: (
        "The model found no voxel of the structure in this series, which is no measurement of 0 mL: it may lie outside "
        "of the scanned range, may have been removed, or the model may have missed it."
    ),
    Flag.TOUCHES_BORDER: "The structure reaches the edge of the images: the volume is a lower bound.",
}


@dataclass(frozen=True)
class Measurement:
    """What was measured of one structure.

    volume_ml: voxel_count * voxel_volume_mm3 / 1000. confidence: mean probability in the mask, 0..1. mean_hu: None
    where nothing was found.
    """

    volume_ml: float
    voxel_count: int
    voxel_volume_mm3: float
    confidence: float
    mean_hu: float | None
    flags: tuple[Flag, ...]


def measure(segmentation: Segmentation, volume: Volume) -> Measurement:
    """Measure a mask by the true geometry of its voxels; mask and volume must lie on one grid (ValueError)."""
    if not segmentation.geometry.geometry_equal(volume.geometry):
        raise ValueError("the segmentation does not lie on the grid of the volume")
    count = int(np.count_nonzero(segmentation.mask))
    voxel_volume_mm3 = float(segmentation.geometry.voxel_volume)
    return Measurement(
        volume_ml=count * voxel_volume_mm3 / 1000,
        voxel_count=count,
        voxel_volume_mm3=voxel_volume_mm3,
        confidence=segmentation.confidence,
        mean_hu=float(volume.hounsfield[segmentation.mask].mean(dtype=np.float64)) if count else None,
        flags=_flags(segmentation.mask),
    )


def _flags(mask: NDArray[np.bool_]) -> tuple[Flag, ...]:
    if not mask.any():
        return (Flag.NOTHING_FOUND,)
    faces = (mask[0], mask[-1], mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1])
    return (Flag.TOUCHES_BORDER,) if any(face.any() for face in faces) else ()

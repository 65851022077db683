"""Voxels on a grid. The grid is a value of its own (`highdicom.VolumeGeometry`); axes are slice, row, column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from highdicom import VolumeGeometry
from numpy.typing import NDArray


def _freeze(array: NDArray[np.generic], geometry: VolumeGeometry) -> None:
    if array.shape != tuple(geometry.spatial_shape):
        raise ValueError(f"array of shape {array.shape} on a grid of shape {tuple(geometry.spatial_shape)}")
    array.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume.

    hounsfield: int16 or float32, shape (slice, row, column), in Hounsfield units; made read-only.
    geometry: the grid in the patient coordinate system, millimetres (PS3.3 C.7.6.2.1.1).
    """

    hounsfield: NDArray[np.generic]
    geometry: VolumeGeometry

    def __post_init__(self) -> None:
        _freeze(self.hounsfield, self.geometry)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One structure's mask on the grid of the source series.

    mask: bool, shape (slice, row, column); made read-only. May be all False: nothing was found.
    confidence: mean probability of the structure inside the mask, 0..1; 0.0 where the mask is empty.
    """

    mask: NDArray[np.bool_]
    geometry: VolumeGeometry
    confidence: float

    def __post_init__(self) -> None:
        _freeze(self.mask, self.geometry)

"""Voxels on a grid. The grid is a value of its own; axes are slice, row, column."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from highdicom import VolumeGeometry
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]
"""A part of a grid: index ranges along slice, row and column, with both ends given and a step of one."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie: image planes evenly apart, in the patient coordinate system, mm (PS3.3 C.7.6.2.1.1).

    geometry: the planes as if each lay along their normal over the one before.
    shear_mm: how far each plane really lies beside the one before, along its columns (towards the next row) and along
        its rows (towards the next column); not zero where the gantry was tilted. highdicom knows no such grid.
    """

    geometry: VolumeGeometry
    shear_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows, columns."""
        slices, rows, columns = (int(size) for size in self.geometry.spatial_shape)
        return slices, rows, columns

    @property
    def is_sheared(self) -> bool:
        """Whether the planes lie beside each other."""
        return any(self.shear_mm)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a voxel; a shear does not change it."""
        return float(self.geometry.voxel_volume)

    @property
    def step_vectors_mm(self) -> NDArray[np.float64]:
        """What one step of each index adds to the position: shape (3, 3), a row for slice, row and column."""
        steps = np.array(self.geometry.spacing_vectors())
        steps[0] += np.array(self.shear_mm) @ np.array(self.geometry.unit_vectors())[1:]
        return steps

    def to_reference(self, indices: NDArray[np.number]) -> NDArray[np.float64]:
        """Patient coordinates in mm of (fractional) indices; both of shape (n, 3)."""
        sheared = indices + np.outer(indices[:, 0], self._shear_voxels())
        return np.asarray(self.geometry.map_indices_to_reference(sheared))

    def to_indices(self, points_mm: NDArray[np.number]) -> NDArray[np.float64]:
        """Fractional indices of patient coordinates in mm; both of shape (n, 3)."""
        sheared = np.asarray(self.geometry.map_reference_to_indices(points_mm))
        return sheared - np.outer(sheared[:, 0], self._shear_voxels())

    def __getitem__(self, box: Box) -> Grid:
        """The grid of the voxels within a box."""
        start = np.array([[part.start for part in box]])
        geometry = VolumeGeometry.from_components(
            [part.stop - part.start for part in box],
            spacing=self.geometry.spacing,
            position=self.to_reference(start)[0],
            direction=self.geometry.direction,
            coordinate_system="PATIENT",
            frame_of_reference_uid=self.geometry.frame_of_reference_uid,
        )
        return Grid(geometry, self.shear_mm)

    def equals(self, other: Grid, tolerance_mm: float = 1e-5) -> bool:
        """Whether both have the same voxels at the same places."""
        same = self.geometry.geometry_equal(other.geometry, tol=tolerance_mm)
        return bool(same and np.allclose(self.shear_mm, other.shear_mm, rtol=0, atol=tolerance_mm))

    def _shear_voxels(self) -> NDArray[np.float64]:
        return np.array([0.0, *np.divide(self.shear_mm, self.geometry.spacing[1:])])


def _freeze(array: NDArray[np.generic], grid: Grid) -> None:
    if array.shape != grid.shape:
        raise ValueError(f"array of shape {array.shape} on a grid of shape {grid.shape}")
    array.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume.

    hounsfield: int16 or float32, shape (slice, row, column), in Hounsfield units; made read-only.
    """

    hounsfield: NDArray[np.generic]
    grid: Grid

    def __post_init__(self) -> None:
        _freeze(self.hounsfield, self.grid)


class ConfidenceKind(StrEnum):
    """What a confidence is, 0..1 either way.

    mean-probability: of the structure inside the mask. agreement: the mean Dice between the passes of a model of
    several members, or over mirrored images.
    """

    MEAN_PROBABILITY = "mean-probability"
    AGREEMENT = "agreement"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One structure's mask on the grid of the source series.

    mask: bool, shape (slice, row, column); made read-only. May be all False: nothing was found.
    confidence: as its kind says, 0..1; 0.0 where the mask is empty.
    components: number of connected pieces that the model found, of which the mask is the largest.
    left_out_ml: volume of the others.
    spread_ml: standard deviation of the volumes that the passes found, each on the model's grid; None of one pass.
    """

    mask: NDArray[np.bool_]
    grid: Grid
    confidence: float
    components: int = 1
    left_out_ml: float = 0.0
    confidence_kind: ConfidenceKind = ConfidenceKind.MEAN_PROBABILITY
    spread_ml: float | None = None

    def __post_init__(self) -> None:
        _freeze(self.mask, self.grid)

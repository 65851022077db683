"""Volume + Card -> tensor. Resampling lives here, and with it the only flip between axis orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import SimpleITK as sitk
import torch
from highdicom import VolumeGeometry
from numpy.typing import NDArray

from models.card import Card
from pipeline.volume import Box, Grid, Volume

_SLAB_SLICES = 64
_NO_VOXEL = 1e-3
"""Share of a voxel by which the extent of the source may exceed the model's grid: cosines are rounded in the files."""
_SMOOTHING_REACH = 1.5
"""Voxels of the target beyond which no source voxel adds to the average: more than five sigma of `_smooth`."""


def model_grid(source: Grid, card: Card) -> Grid:
    """The grid a model sees: around the source, along the patient's axes in the card's orientation, at its spacing.

    It holds the source from face to face and shares its centre, so that an oblique, a coronal or a sheared series shows
    the patient as upright as an axial one; what lies beyond the faces of the source is no data.
    """
    upright = VolumeGeometry(np.eye(4), (1, 1, 1), "PATIENT").to_patient_orientation(card.orientation)
    along = _corners(source) @ upright.direction
    low_mm, high_mm = along.min(axis=0), along.max(axis=0)
    shape = [
        max(1, math.ceil(mm / step - _NO_VOXEL)) for mm, step in zip(high_mm - low_mm, card.spacing_mm, strict=True)
    ]
    geometry = VolumeGeometry.from_components(
        shape,
        spacing=card.spacing_mm,
        center_position=upright.direction @ ((low_mm + high_mm) / 2),
        direction=upright.direction,
        coordinate_system="PATIENT",
        frame_of_reference_uid=source.geometry.frame_of_reference_uid,
    )
    return Grid(geometry)


def to_tensor(volume: Volume, card: Card) -> torch.Tensor:
    """A volume as the model wants it: float32, shape (1, 1, slice, row, column) on `model_grid`, the window as 0..1."""
    low, high = card.window_hu
    grid = model_grid(volume.grid, card)
    tensor = np.empty(grid.shape, np.float32)
    for start in range(0, len(tensor), _SLAB_SLICES):  # float copies of a whole long series would fill the memory
        stop = min(start + _SLAB_SLICES, len(tensor))
        slab = grid[slice(start, stop), slice(0, grid.shape[1]), slice(0, grid.shape[2])]
        near = covering_box(slab, volume.grid, margin=_SMOOTHING_REACH)
        windowed = np.empty(volume.hounsfield[near].shape, np.float32)
        np.clip(volume.hounsfield[near], low, high, out=windowed, casting="unsafe")
        tensor[start:stop] = resample(windowed, volume.grid[near], slab, outside=low, smooth=True)
    tensor -= low
    tensor /= high - low
    return torch.from_numpy(tensor)[None, None]


def covering_box(grid: Grid, source: Grid, *, margin: float = 0.0) -> Box:
    """The smallest box of `source` voxels around all that lie within `margin` voxels of the faces of `grid`."""
    indices = source.to_indices(_corners(grid, margin))
    starts = np.clip(np.floor(indices.min(axis=0)), 0, np.array(source.shape) - 1).astype(int)
    stops = np.clip(np.ceil(indices.max(axis=0)) + 1, starts + 1, source.shape).astype(int)
    low, middle, high = (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    return low, middle, high


def _corners(grid: Grid, margin: float = 0.0) -> NDArray[np.float64]:
    """Patient coordinates of the eight outer corners of a grid, `margin` voxels beyond its faces."""
    faces = [(-0.5 - margin, size - 0.5 + margin) for size in grid.shape]
    return grid.to_reference(np.array(list(itertools.product(*faces))))


def resample(
    array: NDArray[np.float32],
    source: Grid,
    target: Grid,
    *,
    outside: float,
    smooth: bool = False,
) -> NDArray[np.float32]:
    """Interpolate an array on the grid `source` linearly at the voxel centres of `target`, in patient space.

    outside: the value beyond the faces of the source grid. smooth: along axes on which the target is coarser, average
    over about the size of its voxels first, so that noise and edges between its centres are not left to chance.
    """
    image = sitk.GetImageFromArray(array)  # SimpleITK's axes x, y, z are column, row, slice
    image.SetOrigin(source.geometry.position)
    image.SetSpacing(_spacing(source))
    image.SetDirection(_directions(source))
    if smooth:
        image = _smooth(image, source, target)
    resampled = sitk.Resample(
        image,
        tuple(reversed(target.shape)),
        sitk.Transform(),
        sitk.sitkLinear,
        target.geometry.position,
        _spacing(target),
        _directions(target),
        outside,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(resampled)


def _spacing(grid: Grid) -> tuple[float, ...]:
    return tuple(float(mm) for mm in np.linalg.norm(grid.step_vectors_mm, axis=1)[::-1])


def _directions(grid: Grid) -> tuple[float, ...]:
    """Directions of SimpleITK's axes; of a sheared grid they are not at right angles, which it allows."""
    steps = grid.step_vectors_mm[::-1]
    return tuple(float(cosine) for cosine in (steps / np.linalg.norm(steps, axis=1)[:, None]).T.ravel())


def _smooth(image: sitk.Image, source: Grid, target: Grid) -> sitk.Image:
    """A Gaussian that widens each voxel's box to the target's: a box of width w has the variance w^2 / 12."""
    # For each source axis, the target axis that lies nearest.
    along = np.abs(source.geometry.direction.T @ target.geometry.direction).argmax(axis=1)
    target_mm = np.array(target.geometry.spacing)[along]
    variances = np.maximum(target_mm**2 - np.array(source.geometry.spacing) ** 2, 0) / 12
    if not variances.any():
        return image
    return sitk.DiscreteGaussian(image, variance=tuple(float(mm2) for mm2 in reversed(variances)), useImageSpacing=True)

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
from pipeline.volume import Volume

Box = tuple[slice, slice, slice]

_SLAB_SLICES = 64
_SMOOTHING_REACH = 1.5
"""Voxels of the target beyond which no source voxel adds to the average: more than five sigma of `_smooth`."""


def model_grid(geometry: VolumeGeometry, card: Card) -> VolumeGeometry:
    """The grid a model sees: the source's extent, axes turned to the card's orientation, at the card's spacing.

    The axes stay parallel to those of the source, so that an oblique series is not interpolated across its slices. Both
    grids share their centre; where the extent is no multiple of the spacing, the model's grid is the larger one.
    """
    turned = geometry.to_patient_orientation(card.orientation)
    extent_mm = np.multiply(turned.spatial_shape, turned.spacing)
    shape = [max(1, math.ceil(mm / step - 1e-3)) for mm, step in zip(extent_mm, card.spacing_mm, strict=True)]
    return VolumeGeometry.from_components(
        shape,
        spacing=card.spacing_mm,
        center_position=turned.center_position,
        direction=turned.direction,
        coordinate_system="PATIENT",
        frame_of_reference_uid=geometry.frame_of_reference_uid,
    )


def to_tensor(volume: Volume, card: Card) -> torch.Tensor:
    """A volume as the model wants it: float32, shape (1, 1, slice, row, column) on `model_grid`, the window as 0..1."""
    low, high = card.window_hu
    grid = model_grid(volume.geometry, card)
    tensor = np.empty(grid.spatial_shape, np.float32)
    for start in range(0, len(tensor), _SLAB_SLICES):  # float copies of a whole long series would fill the memory
        slab = slice(start, min(start + _SLAB_SLICES, len(tensor)))
        near = covering_box(grid[slab], volume.geometry, margin=_SMOOTHING_REACH)
        windowed = np.empty(volume.hounsfield[near].shape, np.float32)
        np.clip(volume.hounsfield[near], low, high, out=windowed, casting="unsafe")
        tensor[slab] = resample(windowed, volume.geometry[near], grid[slab], outside=low, smooth=True)
    tensor -= low
    tensor /= high - low
    return torch.from_numpy(tensor)[None, None]


def covering_box(geometry: VolumeGeometry, source: VolumeGeometry, *, margin: float = 0.0) -> Box:
    """The smallest box of `source` voxels around all that lie within `margin` voxels of the faces of `geometry`."""
    faces = [(-0.5 - margin, size - 0.5 + margin) for size in geometry.spatial_shape]
    corners = geometry.map_indices_to_reference(np.array(list(itertools.product(*faces))))
    indices = source.map_reference_to_indices(corners)
    starts = np.clip(np.floor(indices.min(axis=0)), 0, np.array(source.spatial_shape) - 1).astype(int)
    stops = np.clip(np.ceil(indices.max(axis=0)) + 1, starts + 1, source.spatial_shape).astype(int)
    low, middle, high = (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    return low, middle, high


def resample(
    array: NDArray[np.float32],
    source: VolumeGeometry,
    target: VolumeGeometry,
    *,
    outside: float,
    smooth: bool = False,
) -> NDArray[np.float32]:
    """Interpolate an array on the grid `source` linearly at the voxel centres of `target`, in patient space.

    outside: the value beyond the faces of the source grid. smooth: along axes on which the target is coarser, average
    over about the size of its voxels first, so that noise and edges between its centres are not left to chance.
    """
    image = _to_image(array, source)
    if smooth:
        image = _smooth(image, source, target)
    resampled = sitk.Resample(
        image,
        tuple(int(size) for size in reversed(target.spatial_shape)),
        sitk.Transform(),
        sitk.sitkLinear,
        target.position,
        tuple(reversed(target.spacing)),
        _directions(target),
        outside,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(resampled)


def _to_image(array: NDArray[np.float32], geometry: VolumeGeometry) -> sitk.Image:
    image = sitk.GetImageFromArray(array)  # SimpleITK's axes x, y, z are column, row, slice
    image.SetOrigin(geometry.position)
    image.SetSpacing(tuple(reversed(geometry.spacing)))
    image.SetDirection(_directions(geometry))
    return image


def _directions(geometry: VolumeGeometry) -> tuple[float, ...]:
    return tuple(float(cosine) for cosine in geometry.direction[:, ::-1].ravel())


def _smooth(image: sitk.Image, source: VolumeGeometry, target: VolumeGeometry) -> sitk.Image:
    """A Gaussian that widens each voxel's box to the target's: a box of width w has the variance w^2 / 12."""
    along = np.abs(source.direction.T @ target.direction).argmax(axis=1)  # the target axis nearest to each source axis
    target_mm = np.array(target.spacing)[along]
    variances = np.maximum(target_mm**2 - np.array(source.spacing) ** 2, 0) / 12
    if not variances.any():
        return image
    return sitk.DiscreteGaussian(image, variance=tuple(float(mm2) for mm2 in reversed(variances)), useImageSpacing=True)

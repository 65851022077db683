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
_SPLINE_REACH = 12.0
"""Voxels of the source beyond which a cubic spline forgets: its poles are 0.27, and 0.27^12 < 1e-6."""
_COARSE = 3.0
"""nnU-Net's ANISO_THRESHOLD."""
_PARALLEL = 0.9999
"""Cosine of axes that are one: an oblique series turned by less than a degree is interpolated plane by plane."""


def model_grid(source: Grid, card: Card) -> Grid:
    """The grid a model sees: around the source, along the patient's axes in the card's orientation, at its spacing.

    It holds the source from face to face and shares its centre, so that an oblique, a coronal or a sheared series shows
    the patient as upright as an axial one; what lies beyond the faces of the source is no data. By nnU-Net's convention
    there is nothing beyond: the number of voxels is rounded, and they are stretched to reach from face to face. By that
    of MONAI's Spacingd the centre of the first voxel stays where it is, and the last lies nearest to the source's last.
    """
    upright = VolumeGeometry(np.eye(4), (1, 1, 1), "PATIENT").to_patient_orientation(card.orientation)
    along = _corners(source, -0.5 if card.convention == "spacingd" else 0.0) @ upright.direction
    low_mm, high_mm = along.min(axis=0), along.max(axis=0)
    shape, spacing_mm = _shape_and_spacing(high_mm - low_mm, card)
    centre_mm = low_mm + spacing_mm * (shape - 1) / 2 if card.convention == "spacingd" else (low_mm + high_mm) / 2
    geometry = VolumeGeometry.from_components(
        [int(count) for count in shape],
        spacing=spacing_mm,
        center_position=upright.direction @ centre_mm,
        direction=upright.direction,
        coordinate_system="PATIENT",
        frame_of_reference_uid=source.geometry.frame_of_reference_uid,
    )
    return Grid(geometry)


def _shape_and_spacing(extent_mm: NDArray[np.float64], card: Card) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Voxels over an extent: between faces, by the convention of MONAI's Spacingd between centres."""
    spacing_mm = np.array(card.spacing_mm, np.float64)
    steps = extent_mm / spacing_mm
    if card.convention == "spacingd":
        return np.round(steps + 1).astype(np.int64), spacing_mm
    if card.convention == "nnunet":
        shape = np.maximum(1, np.round(steps)).astype(np.int64)
        return shape, extent_mm / shape
    return np.maximum(1, np.ceil(steps - _NO_VOXEL)).astype(np.int64), spacing_mm


def to_tensor(volume: Volume, card: Card) -> torch.Tensor:
    """A volume as the card wants it: float32, shape (1, 1, slice, row, column) on `model_grid`, in the card's scale.

    Smoothed where the model's grid is coarser, and interpolated linearly. By nnU-Net's convention cubic splines go
    through the voxels, as `resample_planes` says; by that of MONAI's Spacingd nothing is smoothed, and HU are clipped
    to the window after they were interpolated, not before.
    """
    grid = model_grid(volume.grid, card)
    tensor = np.empty(grid.shape, np.float32)
    for start in range(0, len(tensor), _SLAB_SLICES):  # float copies of a whole long series would fill the memory
        stop = min(start + _SLAB_SLICES, len(tensor))
        slab = grid[slice(start, stop), slice(0, grid.shape[1]), slice(0, grid.shape[2])]
        near = covering_box(slab, volume.grid, margin=_reach(volume.grid, card))
        tensor[start:stop] = _interpolate(volume.hounsfield[near], volume.grid[near], slab, card)
    low, high = card.window_hu or _range_without_zeros(tensor)
    lowest, highest = card.scaled_to
    tensor -= low
    tensor /= max((high - low) / (highest - lowest), float(np.finfo(np.float32).tiny))
    tensor += lowest
    return torch.from_numpy(tensor)[None, None]


def _interpolate(hounsfield: NDArray[np.generic], source: Grid, target: Grid, card: Card) -> NDArray[np.float32]:
    """HU at the voxels of `target`, clipped to the card's window, if it has one."""
    low, high = card.window_hu or (-math.inf, math.inf)
    if card.convention == "spacingd":
        extended, grid = _extend(hounsfield, source, target)
        resampled = resample(extended, grid, target, outside=float(extended.min()))
        return np.clip(resampled, low, high, out=resampled)
    windowed = np.empty(hounsfield.shape, np.float32)
    np.clip(hounsfield, low, high, out=windowed, casting="unsafe")
    if card.convention == "nnunet":
        return resample_planes(windowed, source, target, outside=low, interpolator=sitk.sitkBSpline)
    return resample(windowed, source, target, outside=low, smooth=True)


def _extend(hounsfield: NDArray[np.generic], source: Grid, target: Grid) -> tuple[NDArray[np.float32], Grid]:
    """The outermost voxels repeated: a grid by Spacingd may end half a voxel of its own beyond the source's centres."""
    beyond = math.ceil(max(target.geometry.spacing) / min(source.geometry.spacing) / 2)
    low, middle, high = (slice(-beyond, size + beyond) for size in source.shape)
    return np.pad(hounsfield, beyond, mode="edge").astype(np.float32), source[low, middle, high]


def _range_without_zeros(tensor: NDArray[np.float32]) -> tuple[float, float]:
    """The least and the greatest HU; voxels of exactly 0 HU are set to the mean of the others, as `Card` says."""
    zeros = tensor == 0
    if not zeros.all():
        tensor[zeros] = tensor[~zeros].mean(dtype=np.float64)
    return float(tensor.min()), float(tensor.max())


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
    interpolator: int = sitk.sitkLinear,
) -> NDArray[np.float32]:
    """Interpolate an array on the grid `source` at the voxel centres of `target`, in patient space.

    outside: the value beyond the faces of the source grid. interpolator: one of SimpleITK's. smooth: along axes on
    which the target is coarser, average over about the size of its voxels first, so that noise and edges between its
    centres are not left to chance.
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
        interpolator,
        target.geometry.position,
        _spacing(target),
        _directions(target),
        outside,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(resampled)


def resample_planes(
    array: NDArray[np.float32], source: Grid, target: Grid, *, outside: float, interpolator: int
) -> NDArray[np.float32]:
    """`resample` as nnU-Net does: where voxels are over three times as long as wide, plane by plane.

    Between the planes of such a source, or onto the planes of such a target, the nearest plane is then taken. Only
    where both have planes at right angles to the same axis, as nnU-Net, which knows no other series, takes for granted.
    A plane, or else the whole, keeps its least and greatest value: splines overshoot.
    """
    axes = _coarse_axes(source, target)
    if axes is None:
        resampled = resample(array, source, target, outside=outside, interpolator=interpolator)
        return np.clip(resampled, min(outside, array.min()), array.max(), out=resampled)
    source_axis, target_axis, between = axes
    in_plane = resample(array, source, between, outside=outside, interpolator=interpolator)
    others = tuple(axis for axis in range(3) if axis != source_axis)
    least, greatest = (np.expand_dims(extreme(axis=others), (1, 2)) for extreme in (array.min, array.max))
    if source.step_vectors_mm[source_axis] @ between.step_vectors_mm[target_axis] < 0:
        least, greatest = least[::-1], greatest[::-1]
    planes = np.moveaxis(in_plane, target_axis, 0)
    np.clip(planes, np.minimum(least, outside), greatest, out=planes)
    return resample(in_plane, between, target, outside=outside, interpolator=sitk.sitkNearestNeighbor)


def _coarse_axes(source: Grid, target: Grid) -> tuple[int, int, Grid] | None:
    """The coarse axis of either grid as an axis of both, and the target's pixels on the source's planes; or None."""
    coarse = next((grid for grid in (source, target) if _is_coarse(grid)), None)
    if coarse is None or source.is_sheared or target.is_sheared:
        return None
    along = coarse.geometry.direction[:, np.argmax(coarse.geometry.spacing)]
    cosines = [np.abs(along @ grid.geometry.direction) for grid in (source, target)]
    if min(each.max() for each in cosines) < _PARALLEL:
        return None
    source_axis, target_axis = (int(each.argmax()) for each in cosines)
    return source_axis, target_axis, _with_planes(target, target_axis, source, source_axis)


def _is_coarse(grid: Grid) -> bool:
    """Whether one axis, and not two, is over three times as coarse as the finest."""
    fine, _, coarse = sorted(grid.geometry.spacing)
    return bool(coarse > _COARSE * fine and list(grid.geometry.spacing).count(coarse) == 1)


def _with_planes(target: Grid, target_axis: int, source: Grid, source_axis: int) -> Grid:
    shape, spacing = list(target.shape), list(target.geometry.spacing)
    shape[target_axis], spacing[target_axis] = source.shape[source_axis], source.geometry.spacing[source_axis]
    direction = target.geometry.direction[:, target_axis]
    ends = np.zeros((2, 3))
    ends[1, source_axis] = source.shape[source_axis] - 1
    position = np.array(target.geometry.position)
    geometry = VolumeGeometry.from_components(
        shape,
        spacing=spacing,
        position=position + ((source.to_reference(ends) @ direction).min() - position @ direction) * direction,
        direction=target.geometry.direction,
        coordinate_system="PATIENT",
        frame_of_reference_uid=target.geometry.frame_of_reference_uid,
    )
    return Grid(geometry)


def _reach(source: Grid, card: Card) -> float:
    """Voxels of the model's grid around a slab of it from which the source's voxels still count."""
    if card.convention != "nnunet":
        return _SMOOTHING_REACH
    return max(1.0, _SPLINE_REACH * max(source.geometry.spacing) / min(card.spacing_mm))


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

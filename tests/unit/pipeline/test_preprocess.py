"""The model's grid, and values at places in patient space."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from highdicom import VolumeGeometry

from pipeline.preprocess import model_grid, resample, to_tensor
from pipeline.volume import Grid, Volume
from tests.fakes import CARD, WINDOW_HU
from tests.phantom import AXIAL, CORONAL, OBLIQUE, PRONE


def geometry(
    shape: tuple[int, int, int] = (10, 20, 31),
    spacing_mm: tuple[float, float, float] = (5.0, 0.8, 0.7),
    orientation: tuple[float, ...] = OBLIQUE,
    shear_mm: tuple[float, float] = (0.0, 0.0),
) -> Grid:
    geometry = VolumeGeometry.from_attributes(
        image_position=(-12.0, 33.0, 41.0),
        image_orientation=orientation,
        rows=shape[1],
        columns=shape[2],
        pixel_spacing=spacing_mm[1:],
        spacing_between_slices=spacing_mm[0],
        number_of_frames=shape[0],
        coordinate_system="PATIENT",
        frame_of_reference_uid="1.2.3",
    )
    return Grid(geometry, shear_mm)


def faces(grid: Grid) -> np.ndarray:
    return np.array(list(itertools.product(*((-0.5, size - 0.5) for size in grid.shape))))


@pytest.mark.parametrize("shear_mm", [(0.0, 0.0), (-1.3, 0.4)])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, PRONE, CORONAL])
def test_model_grid_is_upright_and_holds_the_source(
    orientation: tuple[float, ...], shear_mm: tuple[float, float]
) -> None:
    source = geometry(orientation=orientation, shear_mm=shear_mm)
    grid = model_grid(source, CARD)
    np.testing.assert_allclose(grid.step_vectors_mm, [(0, 0, 1), (0, 1, 0), (1, 0, 0)], atol=1e-9)
    corners = grid.to_indices(source.to_reference(faces(source)))
    assert (corners.min(axis=0) >= -0.5 - 1e-3).all()
    assert (corners.max(axis=0) <= np.array(grid.shape) - 0.5 + 1e-3).all()
    np.testing.assert_allclose(corners.min(axis=0), -0.5, atol=0.51)
    np.testing.assert_allclose(corners.max(axis=0), np.array(grid.shape) - 0.5, atol=0.51)
    assert grid.geometry.frame_of_reference_uid == "1.2.3"


@pytest.mark.parametrize("shear_mm", [(0.0, 0.0), (-1.3, 0.4)])
@pytest.mark.parametrize("to_model", [True, False])
def test_linear_fields_are_resampled_exactly(shear_mm: tuple[float, float], to_model: bool) -> None:
    """What is linear in patient space must come out as itself: any flip, shift or half-voxel error would show."""
    source = geometry(shear_mm=shear_mm)
    target = model_grid(source, CARD)
    if not to_model:
        source, target = target, source

    def field(grid: Grid) -> np.ndarray:
        indices = np.stack(np.indices(grid.shape), axis=-1).reshape(-1, 3)
        points = grid.to_reference(indices)
        return (points @ [1.0, -2.0, 0.5]).reshape(grid.shape).astype(np.float32)

    resampled = resample(field(source), source, target, outside=-9999)
    inside = resampled != -9999
    indices = source.to_indices(
        target.to_reference(np.stack(np.indices(target.shape), axis=-1).reshape(-1, 3))
    ).reshape(*target.shape, 3)
    between_centres = ((indices >= 0) & (indices <= np.array(source.shape) - 1)).all(axis=-1)
    assert inside[between_centres].all()
    np.testing.assert_allclose(resampled[between_centres], field(target)[between_centres], atol=1e-3)


def test_window_becomes_0_to_1_and_outside_is_its_low_end() -> None:
    low, high = WINDOW_HU
    hounsfield = np.full((10, 20, 31), 3000, np.int16)
    hounsfield[:5] = (low + high) / 2
    tensor = to_tensor(Volume(hounsfield, geometry(spacing_mm=(5.0, 0.8, 0.77))), CARD)
    assert tensor.dtype.is_floating_point
    assert tensor.shape[:2] == (1, 1)
    assert tensor.shape[2:] == model_grid(geometry(spacing_mm=(5.0, 0.8, 0.77)), CARD).shape
    assert set(np.unique(tensor.numpy().round(3))) >= {0.5, 1.0}
    assert tensor.min() >= 0
    assert tensor.max() <= 1


@pytest.mark.parametrize("orientation", [OBLIQUE, CORONAL])
def test_slabs_leave_no_seams(monkeypatch: pytest.MonkeyPatch, orientation: tuple[float, ...]) -> None:
    noise = np.random.default_rng(2).integers(-300, 300, (30, 40, 31), dtype=np.int16)
    volume = Volume(noise, geometry(noise.shape, (2.0, 0.8, 0.7), orientation))
    card = replace(CARD, spacing_mm=(3.0, 2.0, 1.5))
    whole = to_tensor(volume, card)
    monkeypatch.setattr("pipeline.preprocess._SLAB_SLICES", 3)
    np.testing.assert_allclose(to_tensor(volume, card), whole, atol=1e-4)


def test_coarser_grids_average_noise() -> None:
    noise = np.random.default_rng(1).normal(size=(40, 40, 40)).astype(np.float32)
    source = geometry((40, 40, 40), (1.0, 1.0, 1.0))
    target = model_grid(geometry((40, 40, 40), (1.0, 1.0, 1.0)), replace(CARD, spacing_mm=(3, 3, 3)))
    rough = resample(noise, source, target, outside=0).std()
    smooth = resample(noise, source, target, outside=0, smooth=True).std()
    assert smooth < 0.5 * rough


def test_smoothing_leaves_a_finer_grid_alone() -> None:
    noise = np.random.default_rng(1).normal(size=(10, 20, 31)).astype(np.float32)
    source = geometry(spacing_mm=(5.0, 1.0, 1.0))
    target = model_grid(source, CARD)
    np.testing.assert_array_equal(
        resample(noise, source, target, outside=0, smooth=True), resample(noise, source, target, outside=0)
    )

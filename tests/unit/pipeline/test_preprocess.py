"""The model's grid, and values at places in patient space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from highdicom import VolumeGeometry

from pipeline.preprocess import model_grid, resample, to_tensor
from pipeline.volume import Volume
from tests.fakes import CARD, WINDOW_HU
from tests.phantom import CORONAL, OBLIQUE, PRONE


def geometry(
    shape: tuple[int, int, int] = (10, 20, 31),
    spacing_mm: tuple[float, float, float] = (5.0, 0.8, 0.7),
    orientation: tuple[float, ...] = OBLIQUE,
) -> VolumeGeometry:
    return VolumeGeometry.from_attributes(
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


def faces(grid: VolumeGeometry) -> np.ndarray:
    return np.array([[-0.5, -0.5, -0.5], np.array(grid.spatial_shape) - 0.5])


@pytest.mark.parametrize("orientation", [OBLIQUE, PRONE, CORONAL])
def test_model_grid_covers_the_source_in_the_cards_orientation(orientation: tuple[float, ...]) -> None:
    source = geometry(orientation=orientation)
    grid = model_grid(source, CARD)
    assert [side.value for side in grid.get_closest_patient_orientation()] == ["H", "P", "L"]
    np.testing.assert_allclose(grid.spacing, CARD.spacing_mm)
    np.testing.assert_allclose(grid.center_position, source.center_position)
    corners = grid.map_reference_to_indices(source.map_indices_to_reference(faces(source)))
    assert (corners.min(axis=0) >= -0.5 - 1e-3).all()
    assert (corners.max(axis=0) <= np.array(grid.spatial_shape) - 0.5 + 1e-3).all()
    assert grid.physical_volume <= source.physical_volume * 1.3
    assert grid.frame_of_reference_uid == "1.2.3"


def test_linear_fields_are_resampled_exactly() -> None:
    """What is linear in patient space must come out as itself: any flip, shift or half-voxel error would show."""
    source = geometry()
    target = model_grid(source, CARD)

    def field(grid: VolumeGeometry) -> np.ndarray:
        indices = np.stack(np.indices(grid.spatial_shape), axis=-1).reshape(-1, 3)
        points = grid.map_indices_to_reference(indices)
        return (points @ [1.0, -2.0, 0.5]).reshape(grid.spatial_shape).astype(np.float32)

    resampled = resample(field(source), source, target, outside=-9999)
    inside = resampled != -9999
    indices = source.map_reference_to_indices(
        target.map_indices_to_reference(np.stack(np.indices(target.spatial_shape), axis=-1).reshape(-1, 3))
    ).reshape(*target.spatial_shape, 3)
    between_centres = ((indices >= 0) & (indices <= np.array(source.spatial_shape) - 1)).all(axis=-1)
    assert inside[between_centres].all()
    np.testing.assert_allclose(resampled[between_centres], field(target)[between_centres], atol=1e-3)


def test_window_becomes_0_to_1_and_outside_is_its_low_end() -> None:
    low, high = WINDOW_HU
    hounsfield = np.full((10, 20, 31), 3000, np.int16)
    hounsfield[:5] = (low + high) / 2
    tensor = to_tensor(Volume(hounsfield, geometry(spacing_mm=(5.0, 0.8, 0.77))), CARD)
    assert tensor.dtype.is_floating_point
    assert tensor.shape[:2] == (1, 1)
    assert tensor.shape[2:] == model_grid(geometry(spacing_mm=(5.0, 0.8, 0.77)), CARD).spatial_shape
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

from __future__ import annotations

import numpy as np
import pytest
from highdicom import VolumeGeometry

from pipeline.measure import Flag, measure
from pipeline.volume import Segmentation, Volume


def grid(spacing_mm: tuple[float, float, float] = (2.5, 0.8, 0.5)) -> VolumeGeometry:
    return VolumeGeometry.from_components(
        (10, 12, 14), spacing=spacing_mm, position=(0, 0, 0), patient_orientation="HPL", coordinate_system="PATIENT"
    )


def measured(box: tuple[slice, slice, slice]) -> tuple[float, tuple[Flag, ...], float | None]:
    mask = np.zeros((10, 12, 14), bool)
    mask[box] = True
    hounsfield = np.where(mask, 40, -1000).astype(np.int16)
    measurement = measure(Segmentation(mask, grid(), 0.5), Volume(hounsfield, grid()))
    assert measurement.voxel_count == mask.sum()
    assert measurement.confidence == 0.5
    return measurement.volume_ml, measurement.flags, measurement.mean_hu


def test_volume_is_count_times_true_voxel_volume() -> None:
    assert measured((slice(2, 6), slice(3, 8), slice(4, 9))) == (pytest.approx(4 * 5 * 5 * 1.0 / 1000), (), 40.0)


def test_case_23_nothing_found_is_flagged() -> None:
    assert measured((slice(0), slice(0), slice(0))) == (0, (Flag.NOTHING_FOUND,), None)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, -1])
def test_case_24_touching_the_border_is_flagged(axis: int, side: int) -> None:
    box = [slice(3, 6)] * 3
    box[axis] = slice(0, 4) if side == 0 else slice(7, None)
    assert measured(tuple(box))[1] == (Flag.TOUCHES_BORDER,)


def test_mask_and_volume_on_different_grids_are_an_error() -> None:
    mask = np.zeros((10, 12, 14), bool)
    with pytest.raises(ValueError, match="grid"):
        measure(Segmentation(mask, grid((1, 1, 1)), 0), Volume(mask.astype(np.int16), grid()))


def test_every_flag_has_a_meaning() -> None:
    assert all(flag.meaning.endswith(".") for flag in Flag)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from highdicom import VolumeGeometry

from pipeline.measure import Flag, Measurement, measure
from pipeline.volume import ConfidenceKind, Grid, Segmentation, Volume

SHAPE = (14, 12, 14)
MIDDLE = (slice(2, 8), slice(3, 8), slice(4, 6))


def grid(spacing_mm: tuple[float, float, float] = (25.0, 8.0, 5.0)) -> Grid:
    geometry = VolumeGeometry.from_components(
        SHAPE, spacing=spacing_mm, position=(0, 0, 0), patient_orientation="HPL", coordinate_system="PATIENT"
    )
    return Grid(geometry)


def measured(box: tuple[slice, ...] = MIDDLE, hounsfield: float = 90, **found: Any) -> Measurement:
    """The measurement of a box of voxels of 1 mL each, by default a plausible one."""
    mask = np.zeros(SHAPE, bool)
    mask[box] = True
    voxels = np.where(mask, hounsfield, -1000).astype(np.int16)
    return measure(Segmentation(mask, grid(), **{"confidence": 0.9, **found}), Volume(voxels, grid()))


def test_volume_is_count_times_true_voxel_volume() -> None:
    measurement = measured()
    assert measurement.volume_ml == pytest.approx(6 * 5 * 2)
    assert (measurement.voxel_count, measurement.slice_count) == (60, 6)
    assert (measurement.mean_hu, measurement.confidence) == (90, 0.9)
    assert measurement.flags == ()


def test_case_23_nothing_found_is_flagged() -> None:
    measurement = measured((slice(0),) * 3, components=0)
    assert (measurement.volume_ml, measurement.mean_hu, measurement.flags) == (0, None, (Flag.NOTHING_FOUND,))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, -1])
def test_case_24_touching_the_border_is_flagged(axis: int, side: int) -> None:
    box = list(MIDDLE)
    size = box[axis].stop - box[axis].start
    box[axis] = slice(0, size) if side == 0 else slice(-size, None)
    assert measured(tuple(box)).flags == (Flag.TOUCHES_BORDER,)


@pytest.mark.parametrize(
    ("flag", "changes"),
    [
        (Flag.FEW_SLICES, {"box": (slice(2, 7), *MIDDLE[1:])}),
        (Flag.NO_CONTRAST, {"hounsfield": 45}),
        (Flag.UNLIKELY_HU, {"hounsfield": -60}),
        (Flag.UNLIKELY_HU, {"hounsfield": 400}),
        (Flag.IMPLAUSIBLE_VOLUME, {"box": (slice(2, 8), slice(3, 4), slice(4, 6))}),
        (Flag.IMPLAUSIBLE_VOLUME, {"box": (slice(2, 8), slice(1, 10), slice(2, 12))}),
        (Flag.SEVERAL_COMPONENTS, {"components": 3, "left_out_ml": 4.0}),
        (Flag.LOW_CONFIDENCE, {"confidence": 0.6}),
    ],
)
def test_what_is_doubtful_is_flagged_and_changes_no_number(flag: Flag, changes: dict[str, Any]) -> None:
    measurement = measured(**changes)
    assert measurement.flags == (flag,)
    assert measurement.volume_ml == pytest.approx(measurement.voxel_count)


def test_a_confidence_keeps_its_kind_and_the_passes_their_spread() -> None:
    kind = ConfidenceKind.AGREEMENT
    measurement = measured(confidence=0.8, confidence_kind=kind, spread_ml=1.5)
    assert (measurement.confidence, measurement.confidence_kind, measurement.spread_ml) == (0.8, kind, 1.5)
    assert measurement.flags == ()
    assert measured(confidence=0.69, confidence_kind=kind, spread_ml=9.0).flags == (Flag.LOW_CONFIDENCE,)


def test_crumbs_beside_the_organ_are_no_reason_to_warn() -> None:
    assert measured(components=3, left_out_ml=2.0).flags == ()


def test_mask_and_volume_on_different_grids_are_an_error() -> None:
    mask = np.zeros(SHAPE, bool)
    with pytest.raises(ValueError, match="grid"):
        measure(Segmentation(mask, grid((1, 1, 1)), 0), Volume(mask.astype(np.int16), grid()))


def test_every_flag_has_a_meaning() -> None:
    assert all(flag.meaning.endswith(".") for flag in Flag)

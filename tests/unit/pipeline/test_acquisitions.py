"""Case 15: several acquisitions in one series. One is chosen by the rule, or the series is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipeline.errors import UnfitGeometry
from pipeline.series import Series, open_series
from tests.phantom import PhantomOptions, write_series

SLICES = 12
SMALL = PhantomOptions(shape=(SLICES, 20, 30), spacing_mm=(3.0, 2.0, 2.5))

Mark = Callable[[pydicom.Dataset, int], None]


def write_phases(folder: Path, mark: Mark, twice: range = range(SLICES)) -> list[Path]:
    """Two passes over the phantom, the second over the slices `twice`; `mark` is called with 1 and 2."""
    paths = write_series(folder, replace(SMALL, twice=twice))
    seen: set[tuple[float, ...]] = set()
    for path in paths:
        instance = pydicom.dcmread(path)
        position = tuple(instance.ImagePositionPatient)
        mark(instance, 2 if position in seen else 1)
        seen.add(position)
        instance.save_as(path)
    return paths


def by(keyword: str, *values: object) -> Mark:
    return lambda instance, phase: setattr(instance, keyword, values[phase - 1])


def chosen(series: Series, keyword: str) -> set[object]:
    (assumption,) = series.assumptions
    assert assumption.kind == "acquisition-chosen"
    assert len(series.instances) == len(series.planes)
    return {instance[keyword].value for instance in series.instances}


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", (4, 11)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("AcquisitionTime", ("101113", "101143.5")),
        ("AcquisitionDateTime", ("20200102101113", "20200102101143")),
        ("ConvolutionKernel", ("B30f", "B70f")),
    ],
)
def test_case_15_of_equal_phases_the_latest_is_measured(
    tmp_path: Path, keyword: str, values: tuple[object, object]
) -> None:
    series = open_series(write_phases(tmp_path, by(keyword, *values)))
    assert chosen(series, keyword) == {values[1]}
    np.testing.assert_allclose(series.grid.geometry.spacing, SMALL.spacing_mm)


def test_case_15_time_outweighs_the_number(tmp_path: Path) -> None:
    def mark(instance: pydicom.Dataset, phase: int) -> None:
        instance.AcquisitionNumber, instance.AcquisitionTime = (9, "101113") if phase == 1 else (3, "101200")

    assert chosen(open_series(write_phases(tmp_path, mark)), "AcquisitionNumber") == {3}


def test_case_15_the_phase_with_the_most_slices_is_measured_and_said(tmp_path: Path) -> None:
    series = open_series(write_phases(tmp_path, by("AcquisitionNumber", 1, 2), twice=range(2, 9)))
    assert chosen(series, "AcquisitionNumber") == {1}
    assert series.assumptions[0].text == (
        "2 acquisitions in one series, told apart by Acquisition Number (0020,0012): measured is 1 (12 slices), "
        "the one with the most slices and, of equal ones, the latest; left out: 2 (7 slices)"
    )


def test_case_15_a_gap_in_the_chosen_phase_is_refused(tmp_path: Path) -> None:
    paths = write_phases(tmp_path, by("AcquisitionNumber", 1, 2), twice=range(4))
    late = [path for path in paths if pydicom.dcmread(path, stop_before_pixels=True).AcquisitionNumber == 1]
    paths.remove(late[6])
    with pytest.raises(UnfitGeometry, match="1 slice is missing"):
        open_series(paths)


def test_case_14_a_gap_between_acquisitions_that_follow_each_other_stays_a_gap(tmp_path: Path) -> None:
    paths = write_series(tmp_path, replace(SMALL, missing=[6]))
    for number, path in enumerate(paths):
        instance = pydicom.dcmread(path)
        instance.AcquisitionNumber = 1 if number < 6 else 2
        instance.save_as(path)
    with pytest.raises(UnfitGeometry, match="1 slice is missing"):
        open_series(paths)


def test_passes_that_interleave_are_told_apart(tmp_path: Path) -> None:
    def mark(instance: pydicom.Dataset, phase: int) -> None:
        instance.AcquisitionNumber = phase
        if phase == 2:
            instance.ImagePositionPatient[2] = f"{float(instance.ImagePositionPatient[2]) + 0.7:.6f}"

    series = open_series(write_phases(tmp_path, mark))
    assert chosen(series, "AcquisitionNumber") == {2}
    np.testing.assert_allclose(series.grid.geometry.spacing, SMALL.spacing_mm)


def test_one_acquisition_whose_images_are_numbered_is_one_stack(tmp_path: Path) -> None:
    paths = write_series(tmp_path, SMALL)
    for number, path in enumerate(paths):
        instance = pydicom.dcmread(path)
        instance.AcquisitionNumber, instance.AcquisitionTime = number, f"1011{number:02d}"
        instance.save_as(path)
    series = open_series(paths)
    assert len(series.planes) == SLICES
    assert series.assumptions == ()

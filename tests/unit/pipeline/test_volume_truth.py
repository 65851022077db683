"""The phantom's pancreas: its volume and its place, however it was scanned."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.analyse import Options, segment
from pipeline.assumptions import AssumptionKind
from pipeline.measure import Measurement
from pipeline.series import Series, open_series, read_volume
from pipeline.volume import Segmentation
from tests.fakes import threshold_model
from tests.phantom import (
    AXIAL,
    CORONAL,
    NEGATED_COLUMN,
    OBLIQUE,
    PANCREAS,
    POSITIONS,
    PRONE,
    SAGITTAL,
    PhantomOptions,
    Phase,
    turn,
    write_multiframe,
    write_series,
)
from tests.phantom_objects import write_enhanced

OPTIONS = Options(at=datetime(2024, 1, 2, tzinfo=UTC))
NEAR = PhantomOptions(shape=(50, 60, 92), spacing_mm=(1.2, 1.1, 1.0), centre=(14.0, -11.0, 3.0))
UNFOUND_HU = 40.0


def measure_series(series: Series) -> tuple[Segmentation, Measurement]:
    return segment(read_volume(series), threshold_model(), OPTIONS)


def find_pancreas(paths: list[Path]) -> tuple[Segmentation, Measurement]:
    return measure_series(open_series(paths))


def assert_true(segmentation: Segmentation, measurement: Measurement) -> None:
    assert measurement.volume_ml == pytest.approx(PANCREAS.volume_ml, rel=0.005)
    centre = np.argwhere(segmentation.mask).mean(axis=0)
    expected = segmentation.grid.to_indices(np.array([PANCREAS.centre]))[0]
    np.testing.assert_allclose(centre, expected, atol=0.1)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(PhantomOptions(), id="axial"),
        pytest.param(PhantomOptions(order="descending"), id="reversed-order"),
        pytest.param(PhantomOptions(order="shuffled", attributes={"PatientPosition": "FFS"}), id="feet-first"),
        pytest.param(PhantomOptions(orientation=PRONE), id="prone"),
        pytest.param(PhantomOptions(orientation=NEGATED_COLUMN), id="negated-column-cosine"),
        pytest.param(PhantomOptions(orientation=CORONAL, shape=(90, 90, 100)), id="coronal"),
        pytest.param(PhantomOptions(orientation=SAGITTAL, shape=(90, 90, 100)), id="sagittal"),
        pytest.param(PhantomOptions(orientation=OBLIQUE), id="oblique"),
        pytest.param(PhantomOptions(spacing_mm=(3.0, 1.2, 1.7), shape=(40, 120, 110)), id="non-square-pixels"),
        pytest.param(PhantomOptions(spacing_mm=(5.0, 0.9, 0.9), shape=(24, 160, 190)), id="thick-slices"),
        pytest.param(PhantomOptions(slopes=(1, 0.5, 2, 0.25)), id="slopes-per-slice"),
        pytest.param(PhantomOptions(centre=(40.0, 30.0, -22.0)), id="off-centre"),
    ],
)
def test_case_16_volume_and_position(tmp_path: Path, options: PhantomOptions) -> None:
    assert_true(*find_pancreas(write_series(tmp_path, options)))


@pytest.mark.parametrize("position", POSITIONS)
def test_case_16_patient_supine_prone_on_either_side_and_feet_first(tmp_path: Path, position: str) -> None:
    options = replace(NEAR, orientation=POSITIONS[position], attributes={"PatientPosition": position})
    if position.endswith(("DR", "DL")):  # the organ's length lies along the columns
        options = replace(options, shape=(50, 92, 60))
    assert_true(*find_pancreas(write_series(tmp_path, options)))


@pytest.mark.parametrize("degrees", [-25.0, 8.0, 25.0])
@pytest.mark.parametrize("orientation", [AXIAL, POSITIONS["FFS"], turn(AXIAL, (20.0, -30.0, 10.0))])
def test_case_16_gantry_tilt(tmp_path: Path, orientation: tuple[float, ...], degrees: float) -> None:
    options = replace(NEAR, shape=(74, 96, 100), orientation=orientation, tilt_degrees=degrees)
    series = open_series(write_series(tmp_path, options))
    assert [assumption.kind for assumption in series.assumptions] == [AssumptionKind.TILT_CORRECTED]
    assert f"gantry tilt of {abs(degrees)} degrees" in series.assumptions[0].text
    assert series.grid.voxel_volume_mm3 == pytest.approx(1.2 * 1.1 * 1.0 * np.cos(np.radians(degrees)), rel=1e-4)
    assert_true(*measure_series(series))


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("AcquisitionNumber", (9, 10)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("AcquisitionTime", ("101113", "101143.5")),
    ],
)
def test_case_15_of_phases_the_latest_alone_is_measured(
    tmp_path: Path, keyword: str, values: tuple[object, object]
) -> None:
    phases = (Phase({keyword: values[0]}, UNFOUND_HU), Phase({keyword: values[1]}))
    assert_true(*find_pancreas(write_series(tmp_path, replace(NEAR, phases=phases, order="shuffled"))))


def test_case_15_the_longest_phase_alone_is_measured(tmp_path: Path) -> None:
    late = Phase({"AcquisitionNumber": 2, "AcquisitionTime": "101143"}, UNFOUND_HU, range(3, 45))
    phases = (Phase({"AcquisitionNumber": 1}), late)
    assert_true(*find_pancreas(write_series(tmp_path, replace(NEAR, phases=phases))))


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("FrameAcquisitionNumber", (1, 2)),
        ("TemporalPositionIndex", (9, 10)),
        ("FrameAcquisitionDateTime", ("20200102101113", "20200102101143")),
    ],
)
def test_case_15_phases_in_one_enhanced_ct(tmp_path: Path, keyword: str, values: tuple[object, object]) -> None:
    phases = (Phase({keyword: values[0]}, UNFOUND_HU), Phase({keyword: values[1]}))
    options = replace(NEAR, phases=phases, order="shuffled", slopes=(1.0, 0.75))
    assert_true(*find_pancreas([write_enhanced(tmp_path / "enhanced.dcm", options)]))


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_case_19_enhanced_ct(tmp_path: Path, order: str) -> None:
    options = replace(NEAR, order=order, slopes=(1.0, 0.5, 2.0), tilt_degrees=-15.0, shape=(64, 80, 92))
    series = open_series([write_enhanced(tmp_path / "enhanced.dcm", options)])
    assert len(series.instances) == 1
    assert_true(*measure_series(series))


def test_case_19_legacy_converted_enhanced_ct(tmp_path: Path) -> None:
    assert_true(*find_pancreas([write_multiframe(tmp_path / "enhanced.dcm", PhantomOptions(order="descending"))]))


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_stored_values_of_every_kind(tmp_path: Path, bits: int, is_signed: bool) -> None:
    low = -2000 if is_signed else 4000
    options = replace(NEAR, bits=bits, is_signed=is_signed, padding=low, padding_limit=low + 90, border=3)
    hounsfield = read_volume(open_series(write_series(tmp_path, options))).hounsfield
    plain = read_volume(open_series(write_series(tmp_path, NEAR))).hounsfield
    inside = (slice(None), slice(3, -3), slice(3, -3))
    np.testing.assert_array_equal(hounsfield[inside], plain[inside])
    assert set(hounsfield[:, :3].flat) | set(hounsfield[:, :, -3:].flat) == {-1024}


def test_compressed_gives_the_same_voxels(tmp_path: Path) -> None:
    masks = []
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"):
        (tmp_path / syntax).mkdir()
        segmentation, _ = find_pancreas(write_series(tmp_path / syntax, PhantomOptions(transfer_syntax=syntax)))
        masks.append(segmentation.mask)
    np.testing.assert_array_equal(*masks)


def test_a_second_run_gives_the_same_result(tmp_path: Path) -> None:
    paths = write_series(tmp_path, PhantomOptions(orientation=OBLIQUE))
    (first, first_measurement), (second, second_measurement) = find_pancreas(paths), find_pancreas(paths)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first_measurement == second_measurement

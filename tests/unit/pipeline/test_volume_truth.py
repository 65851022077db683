"""The phantom's pancreas: its volume and its place, however it was scanned."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.analyse import Options, segment
from pipeline.measure import Measurement
from pipeline.series import open_series, read_volume
from pipeline.volume import Segmentation
from tests.fakes import threshold_model
from tests.phantom import (
    CORONAL,
    NEGATED_COLUMN,
    OBLIQUE,
    PANCREAS,
    PRONE,
    SAGITTAL,
    PhantomOptions,
    write_multiframe,
    write_series,
)

OPTIONS = Options(at=datetime(2024, 1, 2, tzinfo=UTC))


def find_pancreas(paths: list[Path]) -> tuple[Segmentation, Measurement]:
    return segment(read_volume(open_series(paths)), threshold_model(), OPTIONS)


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


def test_case_19_multi_frame(tmp_path: Path) -> None:
    assert_true(*find_pancreas([write_multiframe(tmp_path / "enhanced.dcm", PhantomOptions(order="descending"))]))


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

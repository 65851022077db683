"""The whole way of a series."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from models.bundle import Model
from pipeline.analyse import Options, analyse, describe
from pipeline.errors import Exhausted, UnfitSeries
from pipeline.measure import Flag
from pipeline.series import Series, open_series
from tests.fakes import CARD, threshold_model
from tests.phantom import PANCREAS, PhantomOptions, write_series

OPTIONS = Options(at=datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return open_series(write_series(tmp_path, PhantomOptions(shape=(24, 50, 60), spacing_mm=(4.0, 3.5, 3.5))))


def test_findings(series: Series) -> None:
    shares: list[float] = []
    findings = analyse(series, threshold_model(), replace(OPTIONS, progress=shares.append))
    assert findings.measurement.volume_ml == pytest.approx(PANCREAS.volume_ml, rel=0.02)
    assert findings.measurement.flags == ()
    assert findings.measurement.mean_hu == pytest.approx(PANCREAS.hounsfield, abs=15)
    assert findings.seg is not None
    assert findings.seg.FrameOfReferenceUID == series.first.FrameOfReferenceUID
    assert findings.sr.StudyInstanceUID == series.study_instance_uid
    assert findings.volume.hounsfield.shape == findings.segmentation.mask.shape == (24, 50, 60)
    assert shares[-1] == pytest.approx(1)


def test_a_rerun_makes_the_same_objects(series: Series) -> None:
    first, second = (analyse(series, threshold_model(), OPTIONS) for _ in range(2))
    assert first.seg == second.seg
    assert first.sr == second.sr


def test_case_23_nothing_found_has_a_report_and_no_seg(series: Series) -> None:
    findings = analyse(series, threshold_model(threshold_hu=290), OPTIONS)
    assert findings.measurement.flags == (Flag.NOTHING_FOUND,)
    assert findings.seg is None
    assert findings.sr is not None


def test_too_few_slices_are_refused_before_anything_is_decoded_or_run(series: Series) -> None:
    def network(windows: Tensor) -> Tensor:
        raise AssertionError("inference was started")

    for plane in series.planes:
        plane.path.unlink()
    with pytest.raises(UnfitSeries, match="too few slices: 24 where threshold needs 25"):
        analyse(series, Model(replace(CARD, minimum_slices=25), network), OPTIONS)


def test_host_memory_is_exhausted(series: Series) -> None:
    def network(windows: Tensor) -> Tensor:
        raise MemoryError

    with pytest.raises(Exhausted, match="host"):
        analyse(series, Model(CARD, network), OPTIONS)


def test_description_is_json_without_the_patient(series: Series) -> None:
    findings = analyse(series, threshold_model(), OPTIONS)
    described = describe(findings)
    text = json.dumps(described)
    assert json.loads(text) == described
    assert "Phantom" not in text
    assert "PHANTOM-1" not in text
    assert described["volume_ml"] == pytest.approx(findings.measurement.volume_ml, abs=1e-3)
    assert described["flags"] == {}
    assert describe(findings.measurement, findings.card).items() <= described.items()
    assert described["spacing_mm"] == [4.0, 3.5, 3.5]
    assert findings.seg is not None
    assert described["seg_sop_instance_uid"] == findings.seg.SOPInstanceUID


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Options(at=datetime(2024, 1, 2))  # noqa: DTZ001
    with pytest.raises(ValueError, match="batch_size"):
        replace(OPTIONS, batch_size=0)


def test_the_source_stays_as_it_was(series: Series) -> None:
    before = [instance.to_json() for instance in series.instances]
    findings = analyse(series, threshold_model(), OPTIONS)
    assert [instance.to_json() for instance in series.instances] == before
    with pytest.raises(ValueError, match="read-only"):
        findings.volume.hounsfield[0] = 0
    assert not np.shares_memory(findings.volume.hounsfield, findings.segmentation.mask)

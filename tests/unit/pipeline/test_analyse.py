"""The whole way of a series."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor

from models.bundle import Model, read_bundle
from models.ensemble import mirror, read_ensemble
from pipeline.analyse import Options, analyse, describe
from pipeline.errors import Exhausted, UnfitSeries
from pipeline.measure import Flag
from pipeline.postprocess import to_segmentation
from pipeline.preprocess import model_grid, to_tensor
from pipeline.series import Series, open_series
from tests.fakes import CARD, FLAT, flat_network, threshold_model, write_flat_bundle
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


@pytest.mark.parametrize("depth", [1, 7])
def test_a_flat_model_measures_as_it_does_slice_by_slice_by_hand(series: Series, tmp_path: Path, depth: int) -> None:
    card = read_bundle(write_flat_bundle(tmp_path / "flat")).card
    _, rows, columns = model_grid(series.grid, card).shape
    model = read_bundle(write_flat_bundle(tmp_path / "flat", patch=(depth, rows, columns)))
    findings = analyse(series, model, OPTIONS)
    plain = UNet(**FLAT).eval()
    plain.load_state_dict(flat_network().state_dict())
    with torch.inference_mode():
        slices = [plain(image[None]) for image in to_tensor(findings.volume, card)[0].movedim(1, 0)]
        probabilities = torch.softmax(torch.cat(slices).movedim(0, 1), 0)
    by_hand = to_segmentation(probabilities, card, findings.volume.grid)
    np.testing.assert_array_equal(findings.segmentation.mask, by_hand.mask)
    assert findings.measurement.confidence == pytest.approx(by_hand.confidence)
    assert findings.measurement.volume_ml == pytest.approx(PANCREAS.volume_ml, rel=0.1)


def flat_models(folder: Path, *thresholds_hu: float) -> Model:
    return read_ensemble([write_flat_bundle(folder / f"{hu:g}", hu) for hu in thresholds_hu])


def test_one_pass_is_as_confident_as_its_mean_probability(series: Series) -> None:
    findings = analyse(series, threshold_model(), OPTIONS)
    described = describe(findings)
    assert (described["confidence_kind"], described["spread_ml"]) == ("mean-probability", None)
    assert (described["model"]["members"], described["model"]["flips"]) == (1, "")


def test_an_ensemble_is_as_confident_as_its_members_agree(series: Series, tmp_path: Path) -> None:
    thresholds_hu = (80.0, 95.0, 110.0)
    alone = [analyse(series, flat_models(tmp_path, hu), OPTIONS).measurement for hu in thresholds_hu]
    findings = analyse(series, flat_models(tmp_path, *thresholds_hu), OPTIONS)
    measurement = findings.measurement
    assert measurement.confidence_kind == "agreement"
    assert min(a.volume_ml for a in alone) < measurement.volume_ml < max(a.volume_ml for a in alone)
    # Each found a part of what the next one found: Dice of two nested masks is 2 a / (a + b).
    small, middle, large = sorted(a.volume_ml for a in alone)
    nested = [2 * a / (a + b) for a, b in ((small, middle), (small, large), (middle, large))]
    assert measurement.confidence == pytest.approx(sum(nested) / 3, abs=0.02)
    assert measurement.spread_ml == pytest.approx(np.std([small, middle, large], ddof=1), rel=0.1)
    described = describe(findings)
    assert described["confidence_kind"] == "agreement"
    assert described["spread_ml"] == pytest.approx(measurement.spread_ml, abs=1e-3)
    assert described["model"]["members"] == 3


def test_members_that_disagree_are_flagged(series: Series, tmp_path: Path) -> None:
    agreeing, disagreeing = flat_models(tmp_path, 90, 95), flat_models(tmp_path, 85, 90, 95, 290)
    assert Flag.LOW_CONFIDENCE not in analyse(series, agreeing, OPTIONS).measurement.flags
    assert Flag.LOW_CONFIDENCE in analyse(series, disagreeing, OPTIONS).measurement.flags


def test_other_members_or_flips_make_other_objects(series: Series, tmp_path: Path) -> None:
    one, two = flat_models(tmp_path, 90), flat_models(tmp_path, 90, 95)
    models = [one, two, mirror(one, "L"), mirror(one, "LP"), mirror(two, "L")]
    every = [analyse(series, model, OPTIONS) for model in models]
    assert len({findings.sr.SOPInstanceUID for findings in every}) == len(models)
    assert len({findings.seg.SOPInstanceUID for findings in every if findings.seg}) == len(models)
    assert len({(findings.card.name, findings.card.version) for findings in every}) == len(models), (
        "as history compares"
    )

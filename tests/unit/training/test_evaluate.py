"""A judgement from files to the report page, on tiny phantoms, with a model that thresholds."""

import base64
import csv
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from models.bundle import write_bundle
from models.networks import build
from pipeline.analyse import Options, analyse
from pipeline.volume import Volume
from tests.fakes import CARD, threshold_model
from tests.phantom import PANCREAS, PhantomOptions, centres, scan
from tests.results import scan_enhanced, scan_phantom
from training.cases import Case, read_cases, read_source, slice_cases, upright_grid
from training.evaluate import Results, finite, judge, judge_all, main, thin, write
from training.slices import Slice

OPTIONS = PhantomOptions(shape=(24, 40, 50), spacing_mm=(4.0, 4.0, 4.0))


def write_nifti(array: np.ndarray[Any, Any], path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((4.0, 4.0, 4.0))
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_pair(folder: Path, name: str) -> None:
    """Image and labels of the phantom as the Decathlon has them, the pancreas as 2."""
    write_nifti(scan(OPTIONS).astype(np.int16), folder / "imagesTr" / f"{name}.nii.gz")
    truth = PANCREAS.contains(centres(OPTIONS))
    write_nifti(truth.astype(np.uint8) * 2, folder / "labelsTr" / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("one", "two"):
        write_pair(folder, name)
    return folder


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.sources, self.tags, self.cells = "", list[str](), list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data
        self.cells += [data] if self.tags[-1] == "td" else []


def test_two_phantoms_are_judged_from_files_to_the_report(pairs: Path, tmp_path: Path) -> None:
    good, bad = Results(threshold_model()), Results(threshold_model(40.0, name="low <threshold>"))
    judge_all(read_cases(pairs, label=2), [good, bad])
    write(tmp_path, "phantoms <never seen>", [good, bad])

    rows = list(csv.DictReader((tmp_path / "cases.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == ["one", "two"]
    assert all(float(row["dice"]) > 0.93 for row in rows)
    assert all(float(row["true_ml"]) == pytest.approx(PANCREAS.volume_ml, rel=0.05) for row in rows)
    assert all(float(row["seconds"]) > 0 and float(row["peak_mb"]) > 50 for row in rows)

    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert (summary["cases"], summary["zero_dice"]["count"]) == (2, 0)
    assert summary["figures"]["dice"]["mean"] > 0.93 > summary["against"]["figures"]["dice"]["mean"]
    dice = next(one for one in summary["differences"] if one["figure"] == "dice")
    assert (dice["worse"], dice["better"]) == (2, 0)

    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {"one", "two"} <= set(page.cells)
    assert "phantoms <never seen>" in page.text
    assert "low <threshold>" in page.text
    assert not {"script", "link", "iframe"} & set(page.tags)
    pictures = [
        base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True) for source in page.sources
    ]
    assert len(pictures) == 4  # plots, both models, two worst cases
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_the_command_judges_a_bundle_against_another(pairs: Path, tmp_path: Path) -> None:
    bundles = [tmp_path / "one", tmp_path / "other"]
    for folder in bundles:
        arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [2, 2], "strides": [2]}
        network = build("UNet", arguments)
        write_bundle(
            folder, replace(CARD, network="UNet", network_arguments=arguments, patch=(16, 32, 32)), network, ""
        )
    models = ["--bundle", str(bundles[0]), "--against", str(bundles[1]), "--device", "cpu"]
    cases = ["--cases", str(pairs), "--label", "2", "--limit", "1", "--protocol", "phantom"]
    main([*models, *cases, "--out", str(tmp_path / "report")])
    summary = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["cases"], summary["protocol"]) == (1, "phantom")
    assert (tmp_path / "report" / "cases-against.csv").exists()


def test_dicom_ct_with_its_seg_is_a_case(tmp_path: Path) -> None:
    folder = tmp_path / "patient"
    folder.mkdir()
    series = scan_phantom(folder, shape=OPTIONS.shape, spacing_mm=OPTIONS.spacing_mm)
    model = threshold_model()
    findings = analyse(series, model, Options(at=datetime.now(UTC)))
    assert findings.seg is not None
    findings.seg.save_as(folder / "seg.dcm", enforce_file_format=True)
    (folder / "licence.txt").write_text("not DICOM")
    (case,) = read_cases(tmp_path, label=1)
    assert np.array_equal(case.truth, findings.segmentation.mask)
    assert case.name == "patient"
    assert judge(case, model)[0].dice == 1
    assert np.array_equal(read_source(folder).hounsfield, case.volume.hounsfield)
    with pytest.raises(ValueError, match="no segment 3"):
        list(read_cases(tmp_path, label=3))


def test_an_enhanced_ct_with_its_seg_is_a_case(tmp_path: Path) -> None:
    made, folder = tmp_path / "made", tmp_path / "cases" / "patient"
    made.mkdir()
    folder.mkdir(parents=True)
    findings = analyse(scan_enhanced(made), threshold_model(), Options(at=datetime.now(UTC)))
    assert findings.seg is not None
    (made / "enhanced.dcm").rename(folder / "enhanced.dcm")
    findings.seg.save_as(folder / "seg.dcm", enforce_file_format=True)
    (case,) = read_cases(folder.parent, label=1)
    assert np.array_equal(case.truth, findings.segmentation.mask)
    assert case.truth.any()


def test_a_missing_label_file_is_named(pairs: Path, tmp_path: Path) -> None:
    write_pair(tmp_path, "third")
    (tmp_path / "labelsTr" / "third.nii.gz").unlink()
    with pytest.raises(ValueError, match="third"):
        list(read_cases(tmp_path, label=2))
    with pytest.raises(ValueError, match="neither"):
        list(read_cases(tmp_path / "labelsTr", label=2))


def test_pairs_beside_each_other_are_found(tmp_path: Path) -> None:
    write_nifti(scan(OPTIONS).astype(np.int16), tmp_path / "p1_orig.nii.gz")
    write_nifti(PANCREAS.contains(centres(OPTIONS)).astype(np.uint8), tmp_path / "p1_pancreas.nii.gz")
    (case,) = read_cases(tmp_path, label=1)
    assert (case.name, bool(case.truth.any())) == ("p1", True)


def test_an_organ_that_is_missed_is_a_zero_case_and_not_left_out(pairs: Path, tmp_path: Path) -> None:
    missing = Results(threshold_model(1000.0))
    judge_all(read_cases(pairs, label=2), [missing])
    summary = write(tmp_path, "", [missing])
    assert summary["zero_dice"]["share"] == 1
    assert summary["figures"]["hd95_mm"]["median"] == math.inf
    read = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert read["figures"]["hd95_mm"]["median"] is None
    assert "∞" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "nothing-found" in (tmp_path / "cases.csv").read_text(encoding="utf-8")


def test_slices_are_judged_in_their_plane_along_the_same_path() -> None:
    mask = torch.zeros(64, 64)
    mask[20:40, 16:48] = 1
    (case,) = slice_cases([Slice("0001", mask * 200, mask)], planes=8, plane_mm=3.0, pixel_mm=1.0)
    row, _ = judge(case, thin(threshold_model(minimum_slices=20), 8))
    assert row.dice > 0.95
    assert row.true_ml == pytest.approx(20 * 32 * 3 / 1000)
    assert row.patient == "0001"


def test_a_truth_off_the_grid_and_a_tilted_one_are_refused() -> None:
    grid = upright_grid((4, 5, 6), (3.0, 1.0, 1.0))
    volume = Volume(np.zeros((4, 5, 6), np.int16), grid)
    with pytest.raises(ValueError, match="truth of shape"):
        Case("odd", "odd", volume, np.zeros((4, 5, 7), bool))
    sheared = Volume(np.zeros((4, 5, 6), np.int16), replace(grid, shear_mm=(1.0, 0.0)))
    with pytest.raises(ValueError, match="tilted"):
        Case("odd", "odd", sheared, np.zeros((4, 5, 6), bool))


def test_json_says_null_where_there_is_no_number() -> None:
    assert finite({"a": [math.inf, 1.0], "b": (math.nan, "x")}) == {"a": [None, 1.0], "b": [None, "x"]}

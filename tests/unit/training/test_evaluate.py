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
from PIL import Image

from models.bundle import write_bundle
from models.networks import build
from pipeline.analyse import Options, analyse
from pipeline.volume import Volume
from tests.fakes import CARD, threshold_model
from tests.phantom import PANCREAS, PhantomOptions, centres, scan
from tests.results import scan_phantom
from training.cases import Case, read_cases, read_source, slice_cases
from training.datasets import find_examples
from training.evaluate import Results, finite, judge, judge_all, main, write
from training.examples import Options as DataOptions
from training.grids import upright_grid

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
    judge_all(read_cases(find_examples(pairs), "2"), [good, bad])
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


def make_bundle(folder: Path) -> Path:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [2, 2], "strides": [2]}
    card = replace(CARD, network="UNet", network_arguments=arguments, patch=(16, 32, 32))
    write_bundle(folder, card, build("UNet", arguments), "")
    return folder


def test_the_command_judges_a_bundle_against_another(pairs: Path, tmp_path: Path) -> None:
    bundle, other = make_bundle(tmp_path / "one"), make_bundle(tmp_path / "other")
    models = ["--bundle", str(bundle), "--against", str(other), "--device", "cpu"]
    cases = ["--cases", str(pairs), "--label", "2", "--limit", "1", "--protocol", "phantom"]
    main([*models, *cases, "--out", str(tmp_path / "report")])
    summary = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["cases"], summary["protocol"]) == (1, "phantom")
    assert (tmp_path / "report" / "cases-against.csv").exists()


def test_dicom_ct_with_a_corrected_seg_is_a_case(tmp_path: Path) -> None:
    folder = tmp_path / "patient"
    folder.mkdir()
    series = scan_phantom(folder, shape=OPTIONS.shape, spacing_mm=OPTIONS.spacing_mm)
    model = threshold_model()
    findings = analyse(series, model, Options(at=datetime.now(UTC)))
    assert findings.seg is not None
    findings.seg.SegmentSequence[0].SegmentAlgorithmType = "SEMIAUTOMATIC"
    findings.seg.save_as(folder / "seg.dcm", enforce_file_format=True)
    (case,) = read_cases(find_examples(tmp_path), "1")
    assert np.array_equal(case.truth, findings.segmentation.mask)
    assert case.name == "patient"
    assert judge(case, model)[0].dice == 1
    assert np.array_equal(read_source(folder).hounsfield, case.volume.hounsfield)


def test_an_organ_that_is_missed_is_a_zero_case_and_not_left_out(pairs: Path, tmp_path: Path) -> None:
    missing = Results(threshold_model(1000.0))
    judge_all(read_cases(find_examples(pairs), "2"), [missing])
    summary = write(tmp_path, "", [missing])
    assert summary["zero_dice"]["share"] == 1
    assert summary["figures"]["hd95_mm"]["median"] == math.inf
    read = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert read["figures"]["hd95_mm"]["median"] is None
    assert "∞" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "nothing-found" in (tmp_path / "cases.csv").read_text(encoding="utf-8")


def write_pictures(folder: Path) -> Path:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 16:48] = 255
    for kind, grey in (("images", mask // 255 * 200), ("masks", mask)):
        (folder / kind).mkdir(parents=True)
        Image.fromarray(grey).save(folder / kind / "PANCREAS_0001-1001.png")
    return folder


def test_slices_are_judged_in_their_plane_along_the_same_path(tmp_path: Path) -> None:
    examples = find_examples(write_pictures(tmp_path), options=DataOptions(pixel_mm=1.0))
    (case,) = slice_cases(examples, "pancreas", planes=8, plane_mm=3.0)
    row, _ = judge(case, threshold_model(minimum_slices=8))
    assert row.dice > 0.95
    assert row.true_ml == pytest.approx(20 * 32 * 3 / 1000)
    assert row.patient == "PANCREAS_0001"


def test_the_command_judges_pictures_as_slices(tmp_path: Path) -> None:
    cases = ["--cases", str(write_pictures(tmp_path / "pictures")), "--layout", "pictures"]
    main(
        ["--bundle", str(make_bundle(tmp_path / "model")), "--device", "cpu", *cases, "--out", str(tmp_path / "report")]
    )
    summary = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    assert summary["cases"] == 1
    assert "middle plane" in summary["protocol"]


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

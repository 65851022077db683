"""The model that the settings ask for, and what is written with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicomnode.errors import Misconfigured
from dicomnode.node import load_model
from dicomnode.offline import measure_path
from dicomnode.sections import WorkerSettings
from models.bundle import default_bundle
from tests.fakes import write_flat_bundle
from tests.phantom import PhantomOptions, write_series


def test_the_bundle_that_ships_is_the_default() -> None:
    model, device = load_model(WorkerSettings(device="cpu"))
    kept = json.loads((default_bundle() / "configs" / "metadata.json").read_text(encoding="utf-8"))["card"]
    assert (model.card.sha256, device) == (kept["sha256"], "cpu")


def test_several_folders_are_one_model_with_the_flips_of_the_settings(tmp_path: Path) -> None:
    folders = tuple(write_flat_bundle(tmp_path / f"{hu}", hu) for hu in (90, 95))
    model, _ = load_model(WorkerSettings(device="cpu", model=folders, flips="P"))
    assert (model.card.name, model.card.version, model.card.flips) == ("threshold x2", "1+flips.P", "P")


def test_flips_that_are_not_set_are_those_of_the_model(tmp_path: Path) -> None:
    folder = write_flat_bundle(tmp_path, flips="LS")
    assert load_model(WorkerSettings(device="cpu", model=folder))[0].card.flips == "LS"
    assert load_model(WorkerSettings(device="cpu", model=folder, flips=""))[0].card.flips == ""


def test_folders_that_make_no_ensemble_are_refused_with_setting_and_field(tmp_path: Path) -> None:
    folders = (write_flat_bundle(tmp_path / "one", 90), write_flat_bundle(tmp_path / "other", 95, overlap=0.5))
    with pytest.raises(Misconfigured, match=r"worker\.model: .*other: overlap 0\.5 is not that of .*one, 0\.25"):
        load_model(WorkerSettings(device="cpu", model=folders))


def test_findings_of_an_ensemble_say_so(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    write_series(tmp_path / "series", PhantomOptions(shape=(24, 50, 60), spacing_mm=(4.0, 3.5, 3.5)))
    folders = tuple(write_flat_bundle(tmp_path / f"{hu}", hu) for hu in (90, 95))
    settings, shares = WorkerSettings(device="cpu", model=folders, flips="P"), list[float]()
    report = measure_path(tmp_path / "series", tmp_path / "out", settings, shares.append)
    assert json.loads((tmp_path / "out" / "findings.json").read_text(encoding="utf-8")) == report
    assert (report["model"]["members"], report["model"]["flips"], report["confidence_kind"]) == (2, "P", "agreement")
    assert 0.9 < report["confidence"] < 1
    assert report["spread_ml"] > 0
    assert shares[0] <= 0.25
    assert shares[-1] == 1

"""dicomnode models: list, verify, import."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode.cli.models import models
from dicomnode.errors import Refused
from models.bundle import WEIGHTS
from tests.fakes import write_flat_bundle
from tests.nnunet_folders import write_folder
from tests.zoo_folders import write_zoo

RUNNER = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(f'[worker]\nmodel = "{tmp_path}/bundles/tiny"\n', encoding="utf-8")
    return path


def test_an_imported_folder_is_listed_and_whole(tmp_path: Path, config: Path) -> None:
    folder, bundle = write_folder(tmp_path / "folder"), tmp_path / "bundles" / "tiny"
    bundle.parent.mkdir()
    imported = RUNNER.invoke(models, ["import", str(folder), str(bundle), "--target", "spleen", "--fold", "0"])
    assert imported.exit_code == 0
    verified = RUNNER.invoke(models, ["verify", "--config", str(config)])
    assert (verified.exit_code, "measures spleen" in verified.output) == (0, True)
    listed = RUNNER.invoke(models, ["list", str(bundle.parent), "--config", str(config)])
    assert "*" in listed.output
    assert "Dataset901_Tiny" in listed.output
    (bundle / WEIGHTS).write_bytes(b"")
    assert "SHA-256 is" in RUNNER.invoke(models, ["list", str(bundle.parent)]).output
    broken = RUNNER.invoke(models, ["verify", str(bundle)])
    assert isinstance(broken.exception, Refused)


def test_a_bundle_of_the_model_zoo_is_recognised(tmp_path: Path) -> None:
    folder, bundle = write_zoo(tmp_path / "zoo", "dints"), tmp_path / "bundle"
    refused = RUNNER.invoke(models, ["import", str(folder), str(bundle), "--orientation", "SAR"])
    assert "are for folders of nnU-Net" in str(refused.exception)
    imported = RUNNER.invoke(models, ["import", str(folder), str(bundle)])
    assert (imported.exit_code, "dints segmentation" in imported.output) == (0, True)
    assert "measures Pancreas" in RUNNER.invoke(models, ["verify", str(bundle)]).output
    neither = RUNNER.invoke(models, ["import", str(tmp_path), str(tmp_path / "other")])
    assert isinstance(neither.exception, Refused)


def test_what_cannot_be_imported_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    refused = RUNNER.invoke(models, ["import", str(folder), str(tmp_path / "bundle"), "--target", "kidney"])
    assert isinstance(refused.exception, Refused)
    assert "no label 'kidney'" in str(refused.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_several_bundles_are_starred_and_verified_as_the_ensemble_that_they_make(tmp_path: Path) -> None:
    names = {name: write_flat_bundle(tmp_path / name, hu) for name, hu in (("one", 90), ("two", 95), ("three", 99))}
    config = tmp_path / "node.toml"
    config.write_text(f"[worker]\nmodel = ['{names['one']}', '{names['two']}']\n", encoding="utf-8")
    verified = RUNNER.invoke(models, ["verify", "--config", str(config)])
    assert (verified.exit_code, "threshold x2 1 measures pancreas" in verified.output) == (0, True)
    listed = RUNNER.invoke(models, ["list", str(tmp_path), "--config", str(config)]).output.splitlines()
    starred = [name for name, folder in names.items() for line in listed if str(folder) in line and "*" in line]
    assert starred == ["one", "two"]
    write_flat_bundle(names["two"], 95, overlap=0.5)
    refused = RUNNER.invoke(models, ["verify", "--config", str(config)])
    assert isinstance(refused.exception, Refused)
    assert "overlap 0.5" in str(refused.exception)

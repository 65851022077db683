"""dicomnode models: list, verify, import."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode.errors import Refused
from dicomnode.models_cli import models
from models.bundle import WEIGHTS
from tests.nnunet_folders import write_folder

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


def test_what_cannot_be_imported_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    refused = RUNNER.invoke(models, ["import", str(folder), str(tmp_path / "bundle"), "--target", "kidney"])
    assert isinstance(refused.exception, Refused)
    assert "no label 'kidney'" in str(refused.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]

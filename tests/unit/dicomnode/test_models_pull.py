"""dicomnode models: pull, use, and what list shows of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dicomnode.cli import models as models_cli
from dicomnode.cli.models import models
from dicomnode.errors import Refused, Unavailable
from dicomnode.settings import load
from models.bundle import WEIGHTS, default_bundle
from models.releases import Release
from tests.fakes import write_flat_bundle
from tests.mirror import Mirror, served
from tests.released import release, write_archive

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("release") / "model.zip")


@pytest.fixture
def mirror(archive: Path) -> Iterator[Mirror]:
    with served(Mirror(archive.read_bytes())) as mirror:
        yield mirror


@pytest.fixture(autouse=True)
def offered(archive: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Release:
    offered = release(archive, mirror.url)
    monkeypatch.setattr(models_cli, "RELEASES", {"totalsegmentator": offered})
    return offered


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(f'[archive]\npath = "{tmp_path}/data/archive"  # here\n', encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return RUNNER.invoke(models, [str(argument) for argument in arguments])


def test_pulled_into_the_node_s_data_listed_and_used(config: Path, tmp_path: Path, offered: Release) -> None:
    bundle = tmp_path / "data" / "models" / "totalsegmentator"
    pulled = run("pull", "totalsegmentator", "--config", config)
    assert pulled.exit_code == 0, pulled.exception
    said = ["Apache-2.0", offered.url, "0 MB", "Wasserthal", "publish none", "measures Pancreas", f"use {bundle}"]
    assert [text for text in said if text not in pulled.output] == []
    assert pulled.output.index("Apache-2.0") < pulled.output.index("publish none")

    def starred() -> list[str]:
        listed = run("list", "--config", config)
        return [line for line in listed.output.splitlines() if "*" in line]

    assert ["pancreas-3d" in line for line in starred()] == [True]
    used = run("use", bundle, "--config", config)
    assert used.exit_code == 0, used.exception
    assert "Restart the node" in used.output
    assert "Volumes of different models are not compared" in used.output
    assert ["Dataset901_Tiny" in line for line in starred()] == [True]
    assert "# here" in config.read_text()


def test_what_is_not_yet_a_bundle_is_not_listed(config: Path, tmp_path: Path) -> None:
    write_flat_bundle(tmp_path / "data" / "models" / ".totalsegmentator.partial")
    assert ".partial" not in run("list", "--config", config).output
    assert isinstance(run("list", tmp_path / "data" / "models").exception, Refused)


def test_from_a_file_into_a_folder(archive: Path, tmp_path: Path, mirror: Mirror, offered: Release) -> None:
    pulled = run("pull", "totalsegmentator", "--from", archive, "--into", tmp_path, "--sha256", offered.sha256.upper())
    assert (pulled.exit_code, "that you gave" in pulled.output) == (0, True)
    assert (tmp_path / "totalsegmentator" / WEIGHTS).is_file()
    assert mirror.asked == []


def test_from_another_address(
    tmp_path: Path, offered: Release, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = replace(offered, url="http://127.0.0.1:1/model.zip")
    monkeypatch.setattr(models_cli, "RELEASES", {"totalsegmentator": away})
    assert isinstance(run("pull", "totalsegmentator", "--into", tmp_path).exception, Unavailable)
    assert run("pull", "totalsegmentator", "--into", tmp_path, "--url", mirror.url).exit_code == 0


def test_what_is_wrong_with_an_archive_is_a_refusal(tmp_path: Path) -> None:
    refused = run("pull", "totalsegmentator", "--into", tmp_path, "--sha256", "0" * 64)
    assert isinstance(refused.exception, Refused)
    assert "SHA-256 is" in str(refused.exception)
    assert list(tmp_path.glob("*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["monet"], "there are totalsegmentator"),
        (["totalsegmentator", "--from", "a.zip", "--url", "http://a"], "not from both"),
        (["totalsegmentator", "--sha256", "abc"], "64 hexadecimal digits"),
    ],
)
def test_what_makes_no_sense_is_a_matter_of_usage(arguments: list[str], message: str) -> None:
    refused = run("pull", *arguments)
    assert refused.exit_code == 2
    assert message in " ".join(refused.stderr.replace("│", "").split())


def test_a_broken_bundle_is_not_used(config: Path, tmp_path: Path) -> None:
    bundle = write_flat_bundle(tmp_path / "bundle")
    (bundle / WEIGHTS).write_bytes(b"")
    before = config.read_text()
    refused = run("use", bundle, "--config", config)
    assert isinstance(refused.exception, Refused)
    assert "SHA-256 is" in str(refused.exception)
    assert config.read_text() == before


def test_without_a_settings_file_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DICOMNODE_CONFIG", raising=False)
    bundle = write_flat_bundle(tmp_path / "bundle")
    for arguments in ([], ["--config", tmp_path / "new.toml"]):
        refused = run("use", bundle, *arguments)
        assert isinstance(refused.exception, Refused)
        proposed = str(refused.exception).split("lines\n")[1]
    (tmp_path / "new.toml").write_text(proposed)
    assert load(tmp_path / "new.toml")[0].worker.model == bundle


def test_a_variable_that_wins_over_the_file_is_named(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOMNODE_WORKER__MODEL", str(default_bundle()))
    refused = run("use", write_flat_bundle(tmp_path / "bundle"), "--config", config)
    assert "DICOMNODE_WORKER__MODEL is set" in str(refused.exception)

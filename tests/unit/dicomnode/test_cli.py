"""The command line: exit codes, one clear line on stderr, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomnode import cli
from tests.phantom import PhantomOptions, write_series

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(f'[archive]\npath = "{tmp_path}/archive"\n[courier]\ntimeout_seconds = 2\n', encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DICOMNODE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dicomnode", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


def assert_one_line(ended: Ended, *parts: str) -> None:
    assert ended.code == 1
    assert ended.out == ""
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("dicomnode: ")
    assert all(part in line for part in parts), line


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "dicomnode", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("serve", "analyse", "send", "echo", "jobs", "requeue", "volumes"))
    assert "Not a medical device" in " ".join(done.stdout.split())


def test_settings_shows_values_and_where_they_come_from(run, config: Path) -> None:
    ended = run("settings", "--json", "--config", config)
    rows = {row["key"]: row for row in json.loads(ended.out)}
    assert ended.code == 0
    assert rows["courier.timeout_seconds"] == {"key": "courier.timeout_seconds", "value": 2.0, "origin": str(config)}
    assert rows["listener.host"]["origin"] == "default"
    table = run("settings", "--config", config)
    assert "listener.ae_title" in table.out
    assert "PANCREAS" in table.out


def test_settings_shows_one_model_or_several(run, config: Path) -> None:
    for text, shown in (("'a'", "a"), ("['a', 'b']", ["a", "b"])):
        config.write_text(f"[worker]\nmodel = {text}\n", encoding="utf-8")
        rows = {row["key"]: row for row in json.loads(run("settings", "--json", "--config", config).out)}
        assert (rows["worker.model"]["value"], rows["worker.flips"]["value"]) == (shown, None)


def test_settings_shows_no_password(run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_DATABASE__URL", "postgresql://node:hunter2@db/node")
    ended = run("settings", "--json", "--config", config)
    assert "hunter2" not in ended.out
    assert "postgresql://node:***@db/node" in ended.out


def test_usage_errors_exit_with_2(run, config: Path) -> None:
    assert run("nonsense").code == 2
    assert run("echo", "--config", config).code == 2
    assert run("echo", "PACS:104", "--config", config).code == 2
    assert run("serve", "--only", "nobody", "--config", config).code == 2


def test_a_wrong_setting_is_one_line(run, config: Path) -> None:
    config.write_text("[listener]\nprot = 1\n", encoding="utf-8")
    assert_one_line(run("settings", "--config", config), "listener.prot: unknown key")


def test_an_unreachable_pacs_is_one_line(run, config: Path) -> None:
    assert_one_line(run("echo", "PACS@127.0.0.1:9", "--config", config), "PACS@127.0.0.1:9", "no connection")


@pytest.mark.parametrize("command", ["send", "analyse"])
def test_input_that_is_no_dicom_is_one_line(run, config: Path, tmp_path: Path, command: str) -> None:
    empty, text = tmp_path / "empty", tmp_path / "note.txt"
    empty.mkdir()
    text.write_text("hello", encoding="utf-8")
    rest = ["--to", "PACS@127.0.0.1:9"] if command == "send" else ["--out", tmp_path / "out"]
    for path, reason in ((empty, "the folder is empty"), (text, "not a DICOM file"), (tmp_path / "no", "no such file")):
        assert_one_line(run(command, path, *rest, "--config", config), str(path), reason)
    assert not (tmp_path / "out").exists()


def test_an_empty_node_has_no_jobs(run, config: Path) -> None:
    assert json.loads(run("jobs", "--json", "--config", config).out) == []
    assert_one_line(run("jobs", 7, "--config", config), "there is no job 7")
    assert_one_line(run("requeue", 7, "--config", config), "there is no job 7")
    assert_one_line(run("volumes", "P", "--config", config), "nothing was measured for this patient")


RULES = """
[series]
minimum_slices = 3
prefer = ["thinnest"]
[[rules]]
name = "no lungs"
action = "skip"
kernel = "lung"
[[rules]]
name = "abdomen"
action = "analyse"
description = "abd"
"""
STUDY = {"StudyInstanceUID": "1.2.840.999"}


def write_study(folder: Path) -> Path:
    """A thick, a thin and a lung series of one study, a head of another, a localizer and a text."""
    (folder / "deep" / "er").mkdir(parents=True)
    series: dict[str, dict[str, object]] = {
        "thick": STUDY | {"SeriesDescription": "Abd 5.0", "SliceThickness": "5", "SeriesInstanceUID": "1.2.1"},
        "thin": STUDY | {"SeriesDescription": "Abd 1.0", "SliceThickness": "1", "SeriesInstanceUID": "1.2.2"},
        "lung": STUDY | {"SeriesDescription": "Abd", "ConvolutionKernel": "LUNG", "SeriesInstanceUID": "1.2.3"},
        "head": {"SeriesDescription": "Head", "SeriesInstanceUID": "1.2.4"},
        "scout": STUDY | {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.5"},
        "nameless": {"SeriesInstanceUID": None},
    }
    for name, attributes in series.items():
        written = folder / "deep" / name
        written.mkdir()
        for number, path in enumerate(
            write_series(written, PhantomOptions((3, 4, 4), seed=name, attributes=attributes))
        ):
            path.rename(folder / "deep" / "er" / f"{name}{number}")  # mixed in one folder
    (folder / "note.txt").write_text("hello", encoding="utf-8")
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x10\x00\x20\x00UI\xff\xff1.2")
    return folder


def test_case_18_rules_test_explains_every_series(run, config: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "in")
    config.write_text(RULES, encoding="utf-8")
    ended = run("rules", "test", folder, "--json", "--config", config)
    assert ended.code == 0
    report = json.loads(ended.out)
    assert (report["files_not_dicom"], report["files_unreadable"]) == (1, 1)
    found = {series["series_instance_uid"]: series for series in report["series"]}
    assert {uid: series["reason"] for uid, series in found.items()} == {
        "1.2.1": "series ...1.2.2 of this study is preferred: thinner (1 mm against 5 mm)",
        "1.2.2": "",
        "1.2.3": "rule 'no lungs' skips it",
        "1.2.4": "no rule matches",
        "1.2.5": "only localizer, projection or reformatted images",
        "": "not taken in: SeriesInstanceUID is missing or longer than 64 characters",
    }
    assert [uid for uid, series in found.items() if series["analysed"]] == ["1.2.2"]
    assert (found["1.2.2"]["rule"], found["1.2.2"]["thickness_mm"], found["1.2.2"]["slices"]) == ("abdomen", 1.0, 3)
    assert found["1.2.4"]["explanation"] == [
        "rule 'no lungs': kernel '' does not match 'lung'",
        "rule 'abdomen': description 'Head' does not match 'abd'",
    ]


def test_rules_test_is_read_by_people_and_names_no_patient(run, config: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "in")
    config.write_text(RULES, encoding="utf-8")
    ended = run("rules", "test", folder, "--config", config)
    lines = ended.out.splitlines()
    start = lines.index("series ...1.2.2  Abd 1.0")
    assert lines[start + 1].startswith(
        "  3 axial slices, thickness 1 mm, phase unknown, kernel unknown, no contrast agent"
    )
    assert lines[start + 2] == "  ANALYSED by rule 'abdomen'"
    assert lines[-1] == "1 files are not DICOM, 1 cannot be read"
    assert "PHANTOM" not in ended.out.upper()


def test_rules_test_exits_with_1_where_nothing_would_be_analysed(run, config: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "in")
    assert run("rules", "test", folder, "--config", config).code == 1  # fewer than 20 slices each
    assert_one_line(run("rules", "test", folder / "note.txt", "--config", config), "not a DICOM file")


def test_settings_shows_rules_as_they_were_written(run, config: Path) -> None:
    config.write_text(RULES, encoding="utf-8")
    rows = {row["key"]: row["value"] for row in json.loads(run("settings", "--json", "--config", config).out)}
    assert rows["rules"][0] == {"name": "no lungs", "action": "skip", "kernel": "lung"}
    assert rows["series.prefer"] == ["thinnest"]

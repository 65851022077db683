"""The commands about patients, on a node with measurements."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from dicomnode.arrivals import Patient
from dicomnode.cli import app
from dicomnode.database import open_database
from dicomnode.errors import Refused
from tests.patients import add_five_studies, add_measurement


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(f'[archive]\npath = "{tmp_path}/archive"\n', encoding="utf-8")
    database = open_database(f"sqlite:///{tmp_path}/node.db")
    with database.begin() as connection:
        add_five_studies(connection, Patient("A", ""))
        add_measurement(connection, Patient("B", "NORTH"), "2.1", "20240101", 70.0)
        add_measurement(connection, Patient("B", "SOUTH"), "3.1", "20240101", 71.0)
    database.close()
    return path


def run(config: Path, *arguments: object) -> Result:
    result = CliRunner().invoke(app, [*map(str, arguments), "--config", str(config)], env={"DICOMNODE_CONFIG": ""})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(config: Path, *arguments: object) -> list[dict[str, Any]]:
    return json.loads(run(config, "volumes", *arguments, "--json").stdout)  # type: ignore[no-any-return]


def trail(config: Path) -> str:
    return "".join(path.read_text() for path in (config.parent / "audit").glob("audit-*.log"))


def test_volumes_as_table_csv_and_picture(config: Path, tmp_path: Path) -> None:
    shown = run(config, "volumes", "A").stdout
    for words in (
        "≥ 50.0",
        "invalid: outlined the stomach",
        "not comparable",
        "within measurement error",
        "Force Br40",
    ):
        assert words in shown
    run(config, "volumes", "A", "--csv", tmp_path / "a.csv", "--png", tmp_path / "a.png")
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        assert [row["acquired_at"][:4] for row in csv.DictReader(file)] == ["2019", "2020", "2021", "2022", "2023"]
    with Image.open(tmp_path / "a.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 20


def test_case_22_an_id_of_two_issuers_asks_which(config: Path) -> None:
    with pytest.raises(Refused, match=r"2 issuers.*NORTH, SOUTH"):
        run(config, "volumes", "B")
    assert [row["volume_ml"] for row in rows(config, "B", "--issuer", "SOUTH")] == [71.0]


def test_a_result_is_marked_and_restored_on_the_audit_trail(config: Path) -> None:
    (job_id,) = (row["job_id"] for row in rows(config, "A") if row["acquired_at"].startswith("2020"))
    run(config, "invalidate", job_id, "--reason", "motion", "--by", "reader")
    assert [row["standing"] for row in rows(config, "A")].count("invalid") == 2
    assert "110103" in trail(config)
    assert 'EventActionCode="U"' in trail(config)
    assert 'UserID="reader"' in trail(config)
    run(config, "restore", job_id, "--reason", "looked again")
    assert [row["standing"] for row in rows(config, "A")].count("invalid") == 1
    assert run(config, "invalidate", job_id, "--reason", " ").exit_code == 2


def test_case_33_merges_are_auditable(config: Path) -> None:
    run(config, "merge", "B", "--issuer", "NORTH", "--into", "A", "--reason", "same person", "--by", "clerk")
    assert [row["patient_id"] for row in rows(config, "A")] == ["A"] * 5 + ["B"]
    assert "B^^^NORTH" in run(config, "merges").stdout
    run(config, "unmerge", "B", "--issuer", "NORTH", "--reason", "another person", "--by", "chief")
    assert len(rows(config, "A")) == 5
    assert "no patients are merged" in run(config, "merges").stdout
    assert all(
        word in run(config, "merges", "--all").stdout for word in ("clerk", "same person", "chief", "another person")
    )
    assert trail(config).count('csd-code="110110"') == 2


def test_the_cohort_is_written_with_and_without_names(config: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    assert "7 measurements of 3 patients" in run(config, "cohort", tmp_path / "all.csv").stdout
    run(config, "cohort", tmp_path / "hidden.csv", "--pseudonymise", "--key", tmp_path / "key")
    plain, hidden = ((tmp_path / f"{name}.csv").read_text(encoding="utf-8") for name in ("all", "hidden"))
    assert "B^^^NORTH" in plain
    assert not any(word in hidden for word in ("NORTH", "2019", "stomach"))
    assert run(config, "cohort", tmp_path / "x.csv", "--key", tmp_path / "key").exit_code == 2

"""dicomnode alarms."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from dicomnode.cli.upkeep import upkeep
from dicomnode.store import watch
from tests.house import House


def test_case_02_alarms_are_listed_while_they_are_on(tmp_path: Path) -> None:
    house = House(tmp_path)
    config = tmp_path / "node.toml"
    config.write_text(f'[archive]\npath = "{tmp_path}/archive"\n', encoding="utf-8")

    def run(*options: str) -> str:
        done = CliRunner().invoke(upkeep, ["alarms", *options, "--config", str(config)])
        assert done.exit_code == 0
        return done.output

    assert "no alarm is on" in run()
    with house.database.begin() as connection:
        watch.raise_alarm(connection, watch.AlarmKind.DISK, "archive", "0.2 GB [free]", house.now)
    assert "0.2 GB [free]" in run()
    with house.database.begin() as connection:
        watch.clear_alarm(connection, watch.AlarmKind.DISK, "archive", house.now)
    assert json.loads(run("--json")) == []
    (alarm,) = json.loads(run("--all", "--json"))
    assert (alarm["kind"], alarm["raised_at"]) == ("disk", alarm["cleared_at"])
    house.database.close()

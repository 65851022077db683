"""`dicomnode deliveries` and `retry`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomnode import cli
from dicomnode.deliveries import DeliveryEvent, Outcome
from dicomnode.store import outbox
from tests.outboxes import Outbox

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Outbox]:
    """One delivery failed, one parked, two pending."""
    made = Outbox(tmp_path, 9)
    first, second = made.ids()
    with made.database.begin() as connection:
        outbox.claim(connection, "archive", made.now, 60)
        outbox.settle(connection, first, Outcome(DeliveryEvent.REJECT, "0xC000 refused"), made.now)
        outbox.settle(connection, second, Outcome(DeliveryEvent.PARK, "away; given up after 96 h"), made.now)
    yield made
    made.database.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    for name in [name for name in os.environ if name.startswith("DICOMNODE_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "node.toml"
    config.write_text(f'[archive]\npath = "{tmp_path}/archive"\n', encoding="utf-8")

    def run(*arguments: object) -> tuple[int, str, str]:
        words = [str(argument) for argument in (*arguments, "--config", config)]
        monkeypatch.setattr(sys, "argv", ["dicomnode", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def listed(run: Run, *arguments: object) -> list[tuple[str, str]]:
    code, out, _ = run("deliveries", "--json", *arguments)
    assert code == 0
    return [(one["destination"], one["state"]) for one in json.loads(out)]


def test_deliveries_are_listed_and_chosen_from(bench: Outbox, run: Run) -> None:
    stuck = [("archive", "parked"), ("archive", "failed")]
    assert sorted(listed(run)) == sorted([("other", "pending")] * 2 + stuck)
    assert listed(run, "--destination", "other") == [("other", "pending")] * 2
    assert listed(run, "--state", "failed", "--state", "parked") == stuck
    assert len(listed(run, "--limit", 1)) == 1
    code, out, _ = run("deliveries", "--state", "failed")
    assert code == 0
    assert "0xC000 refused" in out
    assert "Segmentation Storage" in out
    assert "parked" not in out


def test_one_delivery_is_sent_once_more(bench: Outbox, run: Run) -> None:
    first, _ = bench.ids()
    assert run("retry", first)[:2] == (0, "1 to be sent once more\n")
    assert bench.states() == ["pending", "parked"]
    assert bench.events(first)[-1] == "requeue"
    assert bench.alarms() == [("delivery", "archive")]


def test_all_that_are_stuck_are_sent_once_more(bench: Outbox, run: Run) -> None:
    assert run("retry", "--all", "--destination", "other")[0] == 1
    assert run("retry", "--all", "--state", "parked")[1] == "1 to be sent once more\n"
    assert run("retry", "--all")[1] == "1 to be sent once more\n"
    assert bench.states() == ["pending", "pending"]
    assert bench.alarms() == []


def test_retry_wants_one_or_all_and_knows_what_there_is(bench: Outbox, run: Run) -> None:
    assert run("retry")[0] == 2
    assert run("retry", 1, "--all")[0] == 2
    assert run("retry", 99) == (1, "", "dicomnode: there is no delivery 99\n")
    assert run("retry", "--all", "--state", "cancelled")[2] == "dicomnode: there is no such delivery\n"

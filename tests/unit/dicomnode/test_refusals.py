"""What peers were denied is told at once, and a flood of it fills nothing."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode.archive import Archive
from dicomnode.database import open_database
from dicomnode.dimse import Denial, DenialKind
from dicomnode.receiver import Receiver
from dicomnode.refusals import Refusals
from dicomnode.store import watch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STRANGER = Denial(DenialKind.CALLER, "STRANGER", "10.1.2.3", "calling AE title is not on the list")


def test_the_first_is_told_at_once_and_the_same_again_once_a_minute() -> None:
    refusals = Refusals()
    refusals.note(STRANGER)
    (first,) = refusals.due(NOW)
    assert (first.at, first.kind, first.calling_ae, first.address) == (NOW, "caller", "STRANGER", "10.1.2.3")
    assert first.reason == "calling AE title is not on the list"
    for _ in range(1234):
        refusals.note(STRANGER)
    assert refusals.due(NOW + timedelta(seconds=59)) == []
    (again,) = refusals.due(NOW + timedelta(seconds=60))
    assert again.reason == "calling AE title is not on the list, 1234 times"
    assert refusals.due(NOW + timedelta(seconds=120)) == []
    refusals.note(STRANGER)
    assert len(refusals.due(NOW + timedelta(seconds=121))) == 1


def test_a_flood_of_titles_and_addresses_is_told_as_of_several() -> None:
    refusals = Refusals()
    for number in range(100_000):
        refusals.note(Denial(DenialKind.CALLER, f"AE{number}", f"10.1.2.{number}", "not on the list"))
    told = refusals.due(NOW)
    assert len(told) == 101
    assert (told[-1].calling_ae, told[-1].address) == ("", "several")
    assert told[-1].reason == "not on the list, 99900 times"


def test_a_title_cannot_write_lines_of_its_own() -> None:
    refusals = Refusals()
    refusals.note(Denial(DenialKind.CALLER, "A\n2026 ERROR x\x1b", "10.1.2.3", "not on the list"))
    assert refusals.due(NOW)[0].calling_ae == "A?2026 ERROR x?"


def test_case_13_a_refusal_is_logged_and_stored_and_the_guard_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = open_database(f"sqlite:///{tmp_path}/node.db")
    told: list[Denial] = []
    receiver = Receiver(database, Archive(tmp_path / "archive", 0), lambda: NOW, guard=told.append)
    receiver.deny(STRANGER)
    with caplog.at_level(logging.WARNING):
        receiver.record_refusals()
        receiver.record_refusals()
    assert [record.getMessage() for record in caplog.records] == [
        "refused (caller): STRANGER at 10.1.2.3: calling AE title is not on the list"
    ]
    with database.read() as connection:
        (stored,) = watch.list_refusals(connection, 10)
    assert (stored.at, stored.kind, stored.calling_ae) == (NOW, "caller", "STRANGER")
    assert told == [STRANGER]
    database.close()


def test_only_the_newest_refusals_are_kept(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/node.db")
    with database.begin() as connection:
        for number in range(5):
            watch.record_refusal(connection, watch.Refusal(NOW, "caller", "A", "10.1.2.3", "", str(number)))
        watch.forget_refusals(connection, 5)
        assert len(watch.list_refusals(connection, 10)) == 5
        watch.forget_refusals(connection, 2)
        assert [refusal.reason for refusal in watch.list_refusals(connection, 10)] == ["4", "3"]
    database.close()

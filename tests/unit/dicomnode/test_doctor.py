"""What the doctor finds, and what it says is to be done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode.archive import Archive
from dicomnode.cli.upkeep import upkeep
from dicomnode.database import open_database
from dicomnode.deliveries import DeliveryEvent, Outcome
from dicomnode.dimse.security import expires_at
from dicomnode.doctor import Finding, Level, Visit, examine_settings, surroundings
from dicomnode.doctor.finding import Stores
from dicomnode.doctor.storage import check_database, check_disk, check_files
from dicomnode.doctor.surroundings import check_certificates, check_clock, check_web
from dicomnode.doctor.traffic import check_alarms, check_destinations, check_work
from dicomnode.settings import Settings
from dicomnode.store import outbox, queue, watch
from tests.certificates import make_identity
from tests.fakes import write_flat_bundle
from tests.house import House

Look = Callable[..., Iterator[Finding]]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.deliver()
    house.now += timedelta(days=2)
    for path in (tmp_path / "archive").rglob("*.dcm"):
        os.utime(path, (0, 0))
    yield house
    house.database.close()


def look(house: House, check: Look, *, deep: bool = False, **settings: object) -> list[Finding]:
    stores = Stores(house.database, house.archive)
    return list(check(Visit(Settings(**settings), house.now, deep), stores))  # type: ignore[arg-type]


def only(findings: list[Finding]) -> tuple[Level, str]:
    (finding,) = findings
    assert (finding.level is Level.OK) == (finding.advice == "")
    return finding.level, finding.text


def test_a_sound_node_is_found_sound(house: House) -> None:
    for check in (check_database, check_disk, check_files, check_work, check_alarms):
        assert [finding.level for finding in look(house, check, deep=True)] == [Level.OK], check


def test_a_missing_file_is_named_but_not_one_that_retention_removed(house: House) -> None:
    missing = house.path("received")
    missing.unlink()
    level, text = only(look(house, check_files))
    assert (level, "1 are missing" in text, missing.name in text) == (Level.FAILURE, True, True)
    house.keep(days=99)
    assert only(look(house, check_files))[0] is Level.OK


def test_another_size_is_seen_at_once_and_another_content_by_a_deep_look(house: House) -> None:
    file = house.path("received")
    blob = file.read_bytes()
    file.write_bytes(blob[:-1])
    assert "another size" in only(look(house, check_files))[1]
    file.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    assert only(look(house, check_files))[0] is Level.OK
    assert "damaged" in only(look(house, check_files, deep=True))[1]


@pytest.mark.parametrize("area", ["received", "results"])
def test_a_file_without_a_row_is_a_warning_once_it_has_stood_there(house: House, area: str) -> None:
    stray = house.path(area).with_name("stray.dcm")
    stray.write_bytes(b"")
    house.now += timedelta(days=9999)
    level, text = only(look(house, check_files))
    assert (level, "without a row" in text) == (Level.WARNING, True)
    house.now -= timedelta(days=9999)
    assert only(look(house, check_files))[0] is Level.OK  # it may just be coming


def test_case_02_a_disk_below_its_reserve(house: House, tmp_path: Path) -> None:
    full = Stores(house.database, Archive(tmp_path / "archive", 1 << 62))
    level, text = only(list(check_disk(Visit(Settings(), house.now), full)))
    assert (level, "reserve" in text) == (Level.FAILURE, True)


def test_a_disk_that_is_soon_full_is_a_warning(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Archive, "room_bytes", 1)
    level, text = only(look(house, check_disk))
    assert (level, "full in 0 days" in text) == (Level.WARNING, True)
    assert only(look(house, check_disk, retention={"quota_gb": 1}))[0] is Level.OK


def test_a_database_of_another_version_is_not_migrated_but_told(tmp_path: Path) -> None:
    empty = open_database(f"sqlite:///{tmp_path}/other.db", migrate=False)
    stores = Stores(empty, Archive(tmp_path / "archive", 0))
    findings = list(check_database(Visit(Settings(), House(tmp_path).now), stores))
    assert [finding.check for finding in findings if finding.level is Level.FAILURE] == ["schema"]
    assert empty.examine().revision == ""
    empty.close()


def test_a_damaged_database_is_told(tmp_path: Path, house: House) -> None:
    house.database.copy_to(tmp_path / "damaged.db")
    with house.database.read() as connection:
        page = connection.exec_driver_sql("SELECT rootpage FROM sqlite_master WHERE name = 'measurements'").scalar_one()
    with (tmp_path / "damaged.db").open("r+b") as stream:
        stream.seek((page - 1) * 4096)
        stream.write(b"\xff" * 100)
    damaged = open_database(f"sqlite:///{tmp_path}/damaged.db", migrate=False)
    findings = list(check_database(Visit(Settings(), house.now), Stores(damaged, house.archive)))
    assert any("restore a backup" in finding.advice for finding in findings)
    damaged.close()


@pytest.mark.parametrize(("synchronised", "word"), [(False, "not synchronised"), (None, "unknown")])
def test_a_clock_that_nobody_sets(
    house: House, monkeypatch: pytest.MonkeyPatch, synchronised: bool | None, word: str
) -> None:
    monkeypatch.setattr(surroundings, "_is_synchronised", lambda: synchronised)
    level, text = only(look(house, check_clock))
    assert (level, word in text) == (Level.WARNING, True)


def test_a_clock_before_the_newest_row(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_is_synchronised", lambda: True)
    assert only(look(house, check_clock))[0] is Level.OK
    house.now -= timedelta(days=3)
    assert [finding.level for finding in look(house, check_clock)] == [Level.FAILURE, Level.OK]


def test_the_kernel_is_asked_for_the_clock_without_changing_it() -> None:
    assert surroundings._is_synchronised() in (True, False, None)


def test_what_stands_still_is_told(house: House) -> None:
    assert house.keep() == 0
    with house.database.begin() as connection:
        queue.requeue(connection, 1, house.now)
    house.now += timedelta(hours=1)
    level, text = only(look(house, check_work))
    assert (level, "1 jobs wait" in text) == (Level.FAILURE, True)
    with house.database.begin() as connection:
        assert queue.claim(connection, "A", house.now, 60)
    assert only(look(house, check_work))[0] is Level.OK
    house.now += timedelta(hours=1)
    assert "left by a process that died" in only(look(house, check_work))[1]


def test_stuck_deliveries_and_those_to_nobody(house: House) -> None:
    with house.database.begin() as connection:
        outbox.requeue(connection, 1, "", house.now)
    house.settle("pacs", Outcome(DeliveryEvent.REJECT, "0x0122"))
    texts = [finding.text for finding in look(house, check_work)]
    assert texts == [
        "1 deliveries to pacs are parked or failed",
        "1 deliveries are for pacs, which is no destination any more",
    ]


def test_alarms_that_are_on(house: House) -> None:
    with house.database.begin() as connection:
        watch.raise_alarm(connection, watch.AlarmKind.DELIVERY, "pacs", "parked", house.now)
    (finding,) = look(house, check_alarms)
    assert (finding.level, "delivery pacs since 2026-01-04" in finding.text) == (Level.WARNING, True)


def test_a_destination_that_does_not_answer(house: House) -> None:
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 4}
    visit = Visit(Settings(destinations=(pacs,), courier={"timeout_seconds": 2}), house.now)
    level, text = only(list(check_destinations(visit)))
    assert (level, "127.0.0.1:4" in text) == (Level.FAILURE, True)


def test_tls_without_a_certificate(house: House) -> None:
    assert only(list(check_certificates(Visit(Settings(), house.now))))[0] is Level.OK
    level, text = only(list(check_certificates(Visit(Settings(listener={"tls": True}), house.now))))
    assert (level, "tls.certificate" in text) == (Level.FAILURE, True)


def test_a_certificate_that_soon_expires_is_a_warning_and_an_expired_one_a_failure(tmp_path: Path) -> None:
    identity = make_identity(tmp_path / "tls")
    settings = Settings(listener={"tls": True}, tls=identity.settings())
    expires = expires_at(identity.certificate)
    levels = [
        only(list(check_certificates(Visit(settings, expires - timedelta(days=days)))))[0] for days in (31, 29, 0)
    ]
    assert levels == [Level.OK, Level.WARNING, Level.FAILURE]


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    settings, finding = examine_settings(tmp_path / "none.toml")
    assert (settings, finding.level) == (None, Level.FAILURE)


def test_the_command_ends_with_1_when_something_fails_and_names_no_patient(house: House, tmp_path: Path) -> None:
    bundle = write_flat_bundle(tmp_path / "bundle")
    config = tmp_path / "node.toml"
    text = f'[archive]\npath = "{tmp_path}/archive"\nreserve_gb = 0\n[worker]\ndevice = "cpu"\nmodel = "{bundle}"\n'
    config.write_text(text, encoding="utf-8")
    sound = CliRunner().invoke(upkeep, ["doctor", "--config", str(config), "--json"])
    assert sound.exit_code == 0, sound.output
    findings = json.loads(sound.output)
    assert {"settings", "database", "archive", "files", "clock", "work", "alarms", "device", "model"} <= {
        finding["check"] for finding in findings
    }
    assert "Finds what is bright" in sound.output
    (bundle / "models" / "model.pt").write_bytes(b"")
    house.path("received").unlink()
    broken = CliRunner().invoke(upkeep, ["doctor", "--config", str(config)])
    assert broken.exit_code == 1
    assert "failure  files" in broken.output
    assert "failure  model" in broken.output
    for word in ("Phantom", "PHANTOM"):
        assert word not in sound.output + broken.output


def test_a_web_interface_that_cannot_start_is_told(house: House) -> None:
    level, text = only(list(check_web(Visit(Settings(), house.now))))
    assert level is Level.OK
    assert "everybody on this machine is an operator" in text
    level, text = only(list(check_web(Visit(Settings(web={"users": house.folder / "none"}), house.now))))
    assert level is Level.FAILURE
    assert "No such file" in text
    assert list(check_web(Visit(Settings(web={"enabled": False}), house.now))) == []

"""Backups of a running node, and a node that goes on from one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from dicomnode import backup
from dicomnode.archive import Archive, digest
from dicomnode.backup import FileMode, back_up
from dicomnode.cli.upkeep import upkeep
from dicomnode.database import Database, open_database
from dicomnode.errors import Refused, Unavailable
from dicomnode.receiver import Receiver
from dicomnode.settings import Settings
from dicomnode.store import inventory
from tests.house import House
from tests.volumes import counting


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.deliver()
    yield house
    house.database.close()


def make(house: House, mode: FileMode = FileMode.NONE) -> tuple[Path, backup.Content]:
    return back_up(house.database, house.archive, house.folder / "backups", mode, house.now)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_holds_the_database_and_lists_every_file(house: House) -> None:
    folder, content = make(house)
    assert folder.name == "node-20260102T030405Z"
    assert (content.files, content.missing, content.damaged) == (4, [], [])
    for row in rows(folder):
        blob = house.archive.path(row["path"]).read_bytes()
        assert (int(row["size_bytes"]), row["sha256"]) == (len(blob), digest(row["path"], blob))
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.csv", "node.db"]
    assert folder.stat().st_mode & 0o077 == 0
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("mode", [FileMode.LINK, FileMode.COPY])
def test_a_node_goes_on_from_it_with_its_history_and_its_files(house: House, mode: FileMode) -> None:
    folder, _ = make(house, mode)
    settings = Settings(archive={"path": folder / "archive"})
    archive = Archive(settings.archive.path, 0)
    database = open_database(settings.database_url)
    Receiver(database, archive, lambda: house.now).repair()
    slice_one = pydicom.dcmread(house.slices[0])
    with database.read() as connection:
        files = list(inventory.files(connection))
        assert [point.volume_ml for point in counting(connection, str(slice_one.PatientID))] == [80.0]
    assert len(files) == 4
    for file in files:
        assert digest(file.path, archive.path(file.path).read_bytes()) == file.sha256
    database.close()


def test_a_backup_is_never_overwritten_and_a_failed_one_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = make(house)
    before = (folder / "node.db").read_bytes()
    with pytest.raises(Refused, match="there already"):
        make(house)
    assert (folder / "node.db").read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(backup, "_write_files", lambda *_: 1 / 0)
        house.keep(days=0.5)
        with pytest.raises(ZeroDivisionError):
            make(house)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_unsound_copy_is_no_backup(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "copy_to", lambda _, file: open_database(f"sqlite:///{file}").close())
    with pytest.raises(Unavailable, match="rows of series"):
        make(house)


def test_it_is_consistent_while_instances_come(house: House) -> None:
    def receive(_: int) -> None:
        house.receive(0, 1, 2)

    house.keep(days=99)
    with ThreadPoolExecutor(2) as pool:
        coming = pool.submit(lambda: [receive(n) for n in range(3)])
        folder, content = make(house, FileMode.LINK)
        coming.result()
    copy = open_database(f"sqlite:///{folder}/node.db")
    with copy.read() as connection:
        named = [file.path for file in inventory.files(connection)]
    copy.close()
    assert named == [row["path"] for row in rows(folder)]
    assert all((folder / "archive" / path).is_file() for path in named)
    assert content.missing == []


def test_what_retention_removes_meanwhile_is_removed_in_the_copy_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_to = Database.copy_to

    def copy_then_tidy(database: Database, file: Path) -> None:
        copy_to(database, file)
        house.keep(days=99)

    monkeypatch.setattr(Database, "copy_to", copy_then_tidy)
    folder, content = make(house, FileMode.COPY)
    assert (content.files, content.missing) == (0, [])
    copy = open_database(f"sqlite:///{folder}/node.db")
    with copy.read() as connection:
        assert list(inventory.files(connection)) == []
    copy.close()


def test_missing_and_damaged_files_are_told(house: House, tmp_path: Path) -> None:
    house.path("results").write_bytes(b"other")
    house.path("received").unlink()
    config = tmp_path / "node.toml"
    config.write_text(f'[archive]\npath = "{tmp_path}/archive"\n', encoding="utf-8")
    done = CliRunner().invoke(upkeep, ["backup", str(tmp_path / "b"), "--files", "copy", "--config", str(config)])
    assert done.exit_code == 1
    assert "3 files kept" in done.output
    assert ": missing" in done.output
    assert ": damaged" in done.output


def test_postgresql_has_a_tool_of_its_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.database._engine.dialect, "name", "postgresql")
    with pytest.raises(Refused, match="pg_dump"):
        house.database.copy_to(house.folder / "copy.db")

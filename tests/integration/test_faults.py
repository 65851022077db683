"""Whatever fails at whatever step: nothing is acknowledged that is not safe, nothing partial left, the retry works."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicomnode.archive import Archive
from dicomnode.database import Database, open_database
from dicomnode.deliveries import DeliveryEvent, Outcome
from dicomnode.errors import Unavailable
from dicomnode.jobs import JobState
from dicomnode.receiver import Receiver
from dicomnode.store import queue
from dicomnode.tables import instances
from dicomnode.worker import Worker
from tests.bench import SMALL, Bench
from tests.faults import Steps, broken_disk, counted, full_disk, is_killed_at
from tests.phantom import PhantomOptions, write_series

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_MOST_STEPS = 200


class Place:
    """A receiver that starts anew: its database and archive as they lie on the disk."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "archive"
        self.database: Database = open_database(f"sqlite:///{folder}/node.db")
        self.receiver = Receiver(self.database, Archive(self.root, 0), lambda: NOW)

    def check(self, acknowledged: bytes | None) -> None:
        """Every file has its row, every row its file, nothing is half written; what was acknowledged is there."""
        files = {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}
        with self.database.read() as connection:
            rows = set(connection.scalars(instances.select().with_only_columns(instances.c.path)))
        assert files == rows
        kept = [(self.root / path).read_bytes() for path in rows]
        assert kept == [acknowledged] if acknowledged else len(kept) <= 1


@pytest.fixture
def blob(tmp_path: Path) -> bytes:
    instance = pydicom.dcmread(write_series(tmp_path, PhantomOptions(shape=(1, 8, 8)))[0])
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def place_at(folder: Path, number: int) -> Path:
    (folder / str(number)).mkdir()
    return folder / str(number)


def test_the_steps_are_seen(tmp_path: Path, blob: bytes) -> None:
    place = Place(tmp_path)
    with counted(Steps()) as steps:
        place.receiver.store(blob, "SENDER")
    assert {
        *("disk statvfs", "disk mkdir", "disk open", "disk write", "disk fsync", "disk replace"),
        *("database execute", "database commit"),
    } <= set(steps.taken)
    durable = [step for step in steps.taken if step.split()[1] in ("write", "fsync", "replace", "commit")]
    assert durable[-5:] == ["disk write", "disk fsync", "disk replace", "disk fsync", "database commit"]


@pytest.mark.parametrize("fault", [full_disk, broken_disk])
def test_case_01_and_02_an_error_at_any_step(tmp_path: Path, blob: bytes, fault: Callable[[str], None]) -> None:
    for number in range(_MOST_STEPS):
        place = Place(place_at(tmp_path, number))
        place.database.close()  # so that it connects anew
        steps, acknowledged = Steps(number, fault), True
        with counted(steps):
            try:
                place.receiver.store(blob, "SENDER")
            except Unavailable:  # which is answered by 0xA700
                acknowledged = False
        if not acknowledged:
            assert not list((place.root / "incoming").iterdir())
            place.receiver.repair()
        place.check(blob if acknowledged else None)
        place.receiver.store(blob, "SENDER")
        place.check(blob)
        place.database.close()
        if steps.is_past:
            break
    assert 10 < number < _MOST_STEPS - 1


def test_case_01_a_kill_at_any_step(tmp_path: Path, blob: bytes) -> None:
    for number in range(_MOST_STEPS):
        folder = place_at(tmp_path, number)
        Place(folder).database.close()  # a child must not inherit a connection
        killed = is_killed_at(number, lambda folder=folder: Place(folder).receiver.store(blob, "SENDER"))
        place = Place(folder)
        place.receiver.repair()
        place.check(None if killed else blob)
        place.receiver.store(blob, "SENDER")
        place.check(blob)
        place.database.close()
        if not killed:
            break
    assert 10 < number < _MOST_STEPS - 1


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of the bench with a job that is due, and what its series is found to hold."""
    folder = tmp_path_factory.mktemp("bench")
    paths = write_series(tmp_path_factory.mktemp("phantom"), PhantomOptions(**SMALL))
    bench = Bench(folder, 1)
    bench.take_in(paths)
    findings = bench.worker._analyse(bench.job())
    bench.database.close()
    return folder, findings


def resume(folder: Path, after_s: float) -> Bench:
    bench = Bench(folder, 1)
    bench.clock.advance(after_s)
    return bench


@pytest.mark.slow
def test_case_28_a_worker_killed_at_any_step(
    tmp_path: Path, measured: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    template, findings = measured
    monkeypatch.setattr(Worker, "_analyse", lambda *_: findings)
    for number in range(_MOST_STEPS):
        folder = shutil.copytree(template, tmp_path / str(number))
        killed = is_killed_at(number, lambda folder=folder: resume(folder, 31).worker.step())
        bench = resume(folder, 31 + 61)  # the lease has run out
        for _ in range(2):  # takes it from the dead, and after the wait does it
            bench.worker.step()
            bench.clock.advance(61)
        assert bench.job().state is JobState.DONE
        assert [state for state, *_ in bench.deliveries()] == ["pending"] * 2
        files = [path for path in (folder / "archive" / "results").rglob("*") if path.is_file()]
        assert len(bench.result_files()) == len(files) == 2  # made again, they are the same
        with bench.database.read() as connection:
            events = [entry.event for entry in queue.timeline(connection, 1)]
        assert events.count("finish") == 1
        bench.database.close()
        shutil.rmtree(folder)
        if not killed:
            break
    assert 10 < number < _MOST_STEPS - 1


@pytest.mark.slow
def test_case_25_a_courier_killed_at_any_step(
    tmp_path: Path, measured: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    template, findings = measured
    monkeypatch.setattr(Worker, "_analyse", lambda *_: findings)
    monkeypatch.setattr("dicomnode.dimse.sending.send", send_into_folder)
    folder = shutil.copytree(template, tmp_path / "due")
    bench = resume(folder, 31)
    bench.worker.step()
    bench.database.close()
    for number in range(_MOST_STEPS):
        folder = shutil.copytree(tmp_path / "due", tmp_path / str(number))
        (folder / "archive" / "pacs").mkdir()
        killed = is_killed_at(number, lambda folder=folder: resume(folder, 31).courier.step())
        bench = resume(folder, 31 + 3600)
        bench.courier.step()
        assert [state for state, *_ in bench.deliveries()] == ["sent"] * 2
        received = {path.read_bytes() for path in (folder / "archive" / "pacs").iterdir()}
        assert received == set(bench.result_files().values())
        bench.database.close()
        shutil.rmtree(folder)
        if not killed:
            break
    assert 10 < number < _MOST_STEPS - 1


def send_into_folder(_: object, __: object, files: Sequence[Path], ___: object) -> Iterator[tuple[Path, Outcome]]:
    """An archive that can be looked into after the sender's death."""
    for file in files:
        (file.parents[3] / "pacs" / file.name).write_bytes(file.read_bytes())
        yield file, Outcome(DeliveryEvent.ACCEPT, "0x0000")

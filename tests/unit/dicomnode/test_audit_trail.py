"""The trail on disk: whole lines, synced, by several processes, and what happens when the disk is full."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode.audit import trail as module
from dicomnode.audit.events import application_started, application_stopped
from dicomnode.audit.messages import Entity, Source
from dicomnode.audit.trail import Trail, day_files
from dicomnode.errors import Misconfigured
from tests.audit_messages import kind, parse, read_lines, read_messages

NOW = datetime(2026, 1, 2, 23, 59, 59, 900_000, tzinfo=UTC)
NODE = Entity("4711", "PANCREAS", "node")


class Disk:
    """Stands for a disk that is full for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._fsync = os.fsync
        monkeypatch.setattr(module.os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device")
        self._fsync(descriptor)


@pytest.fixture
def reports() -> list[str | None]:
    return []


@pytest.fixture
def trail(tmp_path: Path, reports: list[str | None]) -> Trail:
    return Trail(tmp_path / "audit", Source("SOURCE"), NODE, reports.append)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_message_is_one_line_of_rfc_5424_in_the_file_of_its_day(trail: Trail) -> None:
    trail.record(application_started(NODE, NOW))
    assert [file.name for file in day_files(trail.folder)] == ["audit-2026-01-02.log"]
    (line,) = read_lines(trail.folder)
    pattern = rb"<85>1 2026-01-02T23:59:59\.900000Z node dicomnode (\d+) DICOM\+RFC3881 - (<\?xml .*</AuditMessage>)"
    found = re.fullmatch(pattern, line)
    assert found
    assert int(found[1]) == os.getpid()
    assert kind(parse(found[2])) == "Application Start"


def test_nobody_else_may_read_it(trail: Trail) -> None:
    trail.record(application_started(NODE, NOW))
    assert stat.S_IMODE(trail.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in trail.folder.iterdir()} == {0o600}


def test_the_line_is_synced_before_record_returns(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(path.read_bytes() if path.is_file() else b"folder")
        real(descriptor)

    monkeypatch.setattr(module.os, "fsync", fsync)
    trail.record(application_started(NODE, NOW))
    assert synced[0].endswith(b"</AuditMessage>\n")
    assert synced[1] == b"folder"


def test_what_is_there_is_only_added_to(trail: Trail, reports: list[str | None]) -> None:
    trail.record(application_started(NODE, NOW))
    before = day_files(trail.folder)[0].read_bytes()
    again = Trail(trail.folder, Source("SOURCE"), NODE, reports.append)
    again.record(application_stopped(NODE, NOW))
    after = day_files(trail.folder)[0].read_bytes()
    assert after.startswith(before)
    assert [kind(message) for message in read_messages(trail.folder)] == ["Application Start", "Application Stop"]


def test_a_line_that_a_power_cut_left_half_spoils_no_other(trail: Trail) -> None:
    file = trail.folder / "audit-2026-01-02.log"
    file.write_bytes(b"<85>1 2026-01-02T00:00:00Z node dicomn")
    trail.record(application_started(NODE, NOW))
    torn, whole = read_lines(trail.folder)
    assert torn == b"<85>1 2026-01-02T00:00:00Z node dicomn"
    assert whole.endswith(b"</AuditMessage>")


def test_an_older_event_never_goes_to_a_day_that_is_left_behind(trail: Trail) -> None:
    trail.record(application_stopped(NODE, NOW + timedelta(seconds=1)))
    trail.record(application_started(NODE, NOW))
    assert [file.name for file in day_files(trail.folder)] == ["audit-2026-01-03.log"]


def _record_many(folder: Path, count: int) -> None:
    trail = Trail(folder, Source("SOURCE"), NODE, lambda reason: None)
    for _ in range(count):
        trail.record(application_started(NODE, NOW))


def test_several_processes_write_whole_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_record_many, args=(tmp_path, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert len(read_messages(tmp_path)) == 100


def test_a_folder_that_cannot_be_written_is_a_matter_for_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Misconfigured, match=r"audit\.path"):
        Trail(tmp_path / "file", Source("SOURCE"), NODE, lambda reason: None)


def test_a_trail_that_fails_later_raises_nothing_and_loses_nothing(
    trail: Trail, disk: Disk, reports: list[str | None]
) -> None:
    trail.record(application_started(NODE, NOW))
    disk.is_full = True
    for _ in range(3):
        trail.record(application_stopped(NODE, NOW))
    assert len(read_lines(trail.folder)) == 1
    assert reports == [None, "the audit trail cannot be written: no space left on device"]
    disk.is_full = False
    trail.record(application_started(NODE, NOW))
    kinds = [kind(message) for message in read_messages(trail.folder)]
    assert kinds == ["Application Start", *["Application Stop"] * 3, "Application Start"]
    assert reports[2:] == [None]


def test_memory_stays_bounded_and_what_is_lost_is_said(
    trail: Trail, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 5)
    disk.is_full = True
    for _ in range(8):
        trail.record(application_started(NODE, NOW))
    disk.is_full = False
    trail.record(application_stopped(NODE, NOW))
    messages = read_messages(trail.folder)
    kinds = [kind(message) for message in messages]
    assert kinds == [*["Application Start"] * 4, "Application Stop", "Audit Recording Stopped"]
    reason = messages[-1].findtext("EventIdentification/EventOutcomeDescription")
    assert reason == "4 audit messages could be neither written nor kept"

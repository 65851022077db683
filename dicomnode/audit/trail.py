"""The audit trail on disk: one line of syslog for each message, in one file for each day; only ever added to."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path

from dicomnode.audit.events import RECORDING_STOPPED, security_alert
from dicomnode.audit.messages import Entity, Event, Source
from dicomnode.audit.syslog import to_syslog
from dicomnode.errors import Misconfigured

log = logging.getLogger(__name__)

Report = Callable[[str | None], None]
"""Told why something does not work, and None when it works again; once for each change."""

_MOST_WAITING = 10_000  # messages kept in memory while the file cannot be written, some 20 MB


def day_files(folder: Path) -> list[Path]:
    """The files of a trail, oldest first."""
    return sorted(folder.glob("audit-????-??-??.log"))


class Trail:
    """What the processes and threads of one machine record, each message whole and on disk before `record` returns."""

    def __init__(self, folder: Path, source: Source, node: Entity, report: Report) -> None:
        """Make the folder. node: this process. report: told when recording fails.

        Raises Misconfigured where nothing can be written there.
        """
        self.folder = folder.resolve()
        self.node = node
        self._source = source
        self._report = report
        self._turn = threading.Lock()
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._lost = 0
        self._is_failing: bool | None = None  # not known: an earlier process may have left the alarm on
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                for newest in day_files(self.folder)[-1:]:
                    os.close(os.open(newest, os.O_WRONLY | os.O_APPEND))
        except OSError as error:
            raise Misconfigured(f"audit.path: {self.folder}: {error.strerror}") from None

    def record(self, event: Event) -> None:
        """Add a message. Never raises: what cannot be written is reported, kept in memory and written with the next."""
        with self._turn:
            self._wait(event)
            try:
                self._write_waiting()
                if self._lost:
                    reason = f"{self._lost} audit messages could be neither written nor kept"
                    self._lost = 0
                    self._wait(security_alert(self.node, None, RECORDING_STOPPED, reason, event.at))
                    self._write_waiting()
                self._settle(None)
            except OSError as error:
                self._settle(f"the audit trail cannot be written: {error.strerror}")

    def _wait(self, event: Event) -> None:
        line = to_syslog(event, self._source, self.node.address, os.getpid())
        self._waiting.append((f"audit-{event.at.astimezone(UTC):%Y-%m-%d}.log", line))
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._lost += 1

    def _write_waiting(self) -> None:
        with self._alone():
            while self._waiting:
                name, line = self._waiting[0]
                # Never to a file older than the newest: who forwards them has left that one behind.
                newest = max([name, *(file.name for file in day_files(self.folder)[-1:])])
                _append(self.folder / newest, line)
                self._waiting.popleft()

    def _settle(self, reason: str | None) -> None:
        was_failing, self._is_failing = self._is_failing, reason is not None
        if was_failing is self._is_failing:
            return
        if reason or was_failing:
            log.error("%s", reason or "the audit trail is written again")
        self._report(reason)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The processes of this machine write one after another, and while none chooses another file."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _append(file: Path, line: bytes) -> None:
    """Add a line that survives a crash; none or all of it. A line that a power cut left half is ended first."""
    is_new = not file.exists()
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        _write(descriptor, (b"\n" if torn else b"") + line + b"\n", size)
    finally:
        os.close(descriptor)
    if is_new:
        _sync_folder(file.parent)


def _write(descriptor: int, data: bytes, size: int) -> None:
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

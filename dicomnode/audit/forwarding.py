"""From the trail on disk to a syslog server: in order, each message until the server took it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

from dicomnode.audit.trail import Report, day_files
from dicomnode.lifecycle import Backoff

log = logging.getLogger(__name__)

Send = Callable[[Sequence[bytes]], None]
"""Hands messages to a server; raises OSError where it did not take all."""

_BACKOFF = Backoff(1.0, 60.0)
_BATCH_BYTES = 256 * 1024  # read and sent at once; more than the largest message


@dataclass(frozen=True)
class _Position:
    """Up to where the trail is forwarded: the name of a file, and bytes of it."""

    file: str
    offset: int


class Forwarder:
    """Forwards a trail; of several processes that share one, the first alone.

    A batch that the server did not take whole is sent again, so that it may get a message twice, but none never.
    """

    def __init__(self, folder: Path, send: Send, report: Report) -> None:
        """report: told when the server is away."""
        self._folder = folder
        self._send = send
        self._report = report
        self._lock: int | None = None

    def run(self, stop: Event, idle_s: float = 1.0) -> None:
        """Step until `stop` is set, at once while there is more; after failures wait longer and longer."""
        failures, was_away = 0, None
        while not (stop.is_set() or self._is_alone()):
            stop.wait(idle_s)
        while not stop.is_set():
            try:
                wait_s = 0.0 if self.step() else idle_s
                failures, reason = 0, None
            except OSError as error:
                failures += 1
                wait_s = _BACKOFF.wait_s(failures)
                reason = f"the syslog server does not take the audit trail: {error.strerror or error}"
            if was_away is not bool(failures):
                was_away = bool(failures)
                self._report(reason)
            stop.wait(wait_s)
        self.close()

    def step(self) -> int:
        """Send the next messages and remember that they are sent; returns how many. Raises OSError."""
        position = self._read_position()
        messages, after = self._next(position)
        if messages:
            self._send(messages)
        if after != position:
            self._write_position(after)
        return len(messages)

    def close(self) -> None:
        """Let another process forward the trail."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _is_alone(self) -> bool:
        descriptor = os.open(self._folder / "forwarder", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _next(self, position: _Position) -> tuple[list[bytes], _Position]:
        """Whole lines from the position on, of one file, and the position behind them."""
        files = [file for file in day_files(self._folder) if file.name >= position.file]
        for file in files:
            offset = position.offset if file.name == position.file else 0
            lines, end = _read_lines(file, offset)
            after = _Position(file.name, end)
            # Only the newest is still written to; a half line at the end of another will never be whole.
            if end > offset or file is files[-1]:
                return [line for line in lines if _is_whole(line)], after
        return [], position

    def _read_position(self) -> _Position:
        try:
            return _Position(**json.loads((self._folder / "forwarded.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return _Position("", 0)  # from the beginning: better twice than never

    def _write_position(self, position: _Position) -> None:
        temporary = self._folder / "forwarded.json.part"
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(asdict(position), stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._folder / "forwarded.json")


def _read_lines(file: Path, offset: int) -> tuple[list[bytes], int]:
    with file.open("rb") as stream:
        stream.seek(offset)
        block = stream.read(_BATCH_BYTES)
    whole = block[: block.rfind(b"\n") + 1]
    return whole.splitlines(), offset + len(whole)


def _is_whole(line: bytes) -> bool:
    if line.endswith(b"</AuditMessage>"):
        return True
    log.warning("a line of the audit trail that a crash left half is not forwarded")
    return False

"""Faults at every step that an act takes towards the disk or the database: found as it runs, so that a new step
is tried without being named here."""

from __future__ import annotations

import errno
import io
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FrameType
from typing import Any

_OF_THE_DISK = {"open", "write", "flush", "fsync", "rename", "replace", "link", "mkdir", "unlink", "remove", "statvfs"}
_OF_THE_DATABASE = {"connect", "execute", "executemany", "commit"}


@dataclass
class Steps:
    """The steps of an act; before the one at index `at` the fault happens. taken: the names of those begun."""

    at: int | None = None
    fault: Callable[[str], None] = lambda _: None
    taken: list[str] = field(default_factory=list)

    @property
    def is_past(self) -> bool:
        """Whether the act had fewer steps than that."""
        return self.at is not None and len(self.taken) <= self.at

    def begin(self, name: str) -> None:
        self.taken.append(name)
        if len(self.taken) - 1 == self.at:
            self.fault(name)


@contextmanager
def counted(steps: Steps) -> Iterator[Steps]:
    """Let every step within the block begin in `steps`, which may raise instead of it. Of this thread alone."""

    def look(_frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and (name := _name(called)):
            steps.begin(name)

    sys.setprofile(look)
    try:
        yield steps
    finally:
        sys.setprofile(None)


def _name(called: Any) -> str:
    """What a call of a C function does to disk or database, or an empty text."""
    if not isinstance(called, BuiltinFunctionType):
        return ""
    owner, module, name = called.__self__, called.__module__, called.__name__
    if isinstance(owner, sqlite3.Connection | sqlite3.Cursor) or module == "_sqlite3":
        return f"database {name}" if name in _OF_THE_DATABASE else ""
    is_of_files = isinstance(owner, io.BufferedWriter | io.FileIO) or module in ("posix", "io", "_io")
    return f"disk {name}" if is_of_files and name in _OF_THE_DISK else ""


def full_disk(step: str) -> None:
    """No space left; the database says it in its own words."""
    if step.startswith("database"):
        raise sqlite3.OperationalError("database or disk is full")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken_disk(step: str) -> None:
    """An error of the device; of the database: another writer that does not end."""
    if step.startswith("database"):
        raise sqlite3.OperationalError("database is locked")
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def sudden_death(_: str) -> None:
    """As `kill -9`: no `finally`, no rollback, nothing."""
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run the act in a process that dies before that step; False where it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            with counted(Steps(step, sudden_death)):
                act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)

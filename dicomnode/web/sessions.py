"""Who is signed in, who fails to be too often, and what a person has just been recorded to look at. No clock here."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dicomnode.lifecycle import Backoff
from dicomnode.web.accounts import Role

_MOST = 10_000  # of each kind in memory; the oldest makes room
_FREE_FAILURES = 5
_WAIT = Backoff(1.0, 300.0)
_FORGET = timedelta(minutes=30)
_SIGHTING = timedelta(minutes=10)


@dataclass(frozen=True)
class Visitor:
    """Who asks. name: empty where the site has no users. address: where the request came from."""

    name: str
    role: Role
    address: str


@dataclass
class _Session:
    name: str
    used_at: datetime


class Sessions:
    """Those signed in, by a random key that their browser keeps. They end with the process, by signing out, or idle."""

    def __init__(self, idle: timedelta) -> None:
        self._idle = idle
        self._sessions: dict[str, _Session] = {}
        self._turn = threading.Lock()

    def open(self, name: str, now: datetime) -> str:
        """Sign somebody in; returns the key."""
        key = secrets.token_urlsafe(32)
        with self._turn:
            _make_room(self._sessions)
            self._sessions[key] = _Session(name, now)
        return key

    def name(self, key: str, now: datetime, *, is_use: bool) -> str | None:
        """Whose session it is, None: nobody's any more. is_use: somebody did something, so that it lasts on."""
        with self._turn:
            session = self._sessions.get(key)
            if session is None or now - session.used_at >= self._idle:
                self._sessions.pop(key, None)
                return None
            if is_use:
                session.used_at = now
            return session.name

    def close(self, key: str) -> str | None:
        """Sign out; whose session it was."""
        with self._turn:
            session = self._sessions.pop(key, None)
        return session.name if session else None


@dataclass
class _Failures:
    count: int
    last_at: datetime


class Throttle:
    """After five failures in a row a name, or an address, waits longer before each further try."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failures] = {}
        self._turn = threading.Lock()

    def wait_s(self, key: str, now: datetime) -> float:
        """How long the next try has to wait; 0: it is free."""
        with self._turn:
            failed = self._failures.get(key)
            if failed is None or failed.count < _FREE_FAILURES:
                return 0.0
            due = failed.last_at + timedelta(seconds=_WAIT.wait_s(failed.count - _FREE_FAILURES + 1))
            return max(0.0, (due - now).total_seconds())

    def fail(self, key: str, now: datetime) -> None:
        """Count a failure."""
        with self._turn:
            failed = self._failures.pop(key, None)
            _make_room(self._failures)
            count = 1 if failed is None or now - failed.last_at >= _FORGET else failed.count + 1
            self._failures[key] = _Failures(count, now)

    def succeed(self, key: str) -> None:
        """Forget what failed."""
        with self._turn:
            self._failures.pop(key, None)


class Sightings:
    """What was recorded lately: pages that fetch themselves again would fill the audit trail."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, datetime] = {}
        self._turn = threading.Lock()

    def is_new(self, sighting: Hashable, now: datetime) -> bool:
        """Whether it was not recorded in the last ten minutes; then it counts as recorded."""
        with self._turn:
            seen_at = self._seen.get(sighting)
            if seen_at is not None and now - seen_at < _SIGHTING:
                return False
            self._seen.pop(sighting, None)
            _make_room(self._seen)
            self._seen[sighting] = now
            return True


def _make_room(kept: dict[Any, Any]) -> None:
    if len(kept) >= _MOST:
        kept.pop(next(iter(kept)))

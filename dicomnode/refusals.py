"""What peers were denied, gathered so that a flood of it fills neither the log nor the database. Pure."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dicomnode.dimse import Denial
from dicomnode.store.watch import Refusal

MOST_ROWS = 10_000
"""How many refusals the database keeps."""

_REPEAT = timedelta(minutes=1)
_MOST = 100


@dataclass
class _Entry:
    told_at: datetime | None
    count: int


class Refusals:
    """Denials that wait to be recorded: the first of its kind at once, the same again once a minute, with its count.

    At most 100 different ones a minute; more of one kind are told as of several callers.
    """

    def __init__(self) -> None:
        self._entries: dict[Denial, _Entry] = {}
        self._lock = threading.Lock()

    def note(self, denial: Denial) -> None:
        """Take a denial; from any thread."""
        title = "".join(letter if letter.isprintable() else "?" for letter in denial.calling_ae)[:16]
        denial = replace(denial, calling_ae=title)
        with self._lock:
            if denial not in self._entries and len(self._entries) >= _MOST:
                denial = replace(denial, calling_ae="", address="several")
            self._entries.setdefault(denial, _Entry(None, 0)).count += 1

    def due(self, now: datetime) -> list[Refusal]:
        """What is to be recorded now; it is taken out."""
        refusals = []
        with self._lock:
            for denial, entry in list(self._entries.items()):
                if entry.told_at is not None and now - entry.told_at < _REPEAT:
                    continue
                if entry.count == 0:
                    del self._entries[denial]
                    continue
                again = f", {entry.count} times" if entry.count > 1 else ""
                refusals.append(
                    Refusal(now, denial.kind, denial.calling_ae, denial.address[:64], "", denial.reason + again)
                )
                entry.told_at, entry.count = now, 0
        return refusals

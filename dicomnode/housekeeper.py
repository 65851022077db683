"""Housekeeper: the fifth actor. It removes what retention lets go, and watches the disk and this node's certificate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event

from dicomnode.archive import Archive
from dicomnode.database import Database
from dicomnode.dimse.security import RENEW_WITHIN, expires_at
from dicomnode.retention import Files, Holding, RetentionRule, due, why_kept
from dicomnode.store import retention, watch

log = logging.getLogger(__name__)

_TIDY_EVERY = timedelta(hours=1)
_AT_ONCE = 200  # files that go in one transaction, which keeps the receiver waiting


@dataclass(frozen=True)
class Household:
    """What the housekeeper goes by.

    promising: the destinations whose archive promises storage commitment. certificate: this node's, PEM; None: it has
    none.
    """

    rule: RetentionRule
    promising: tuple[str, ...] = ()
    certificate: Path | None = None


class Housekeeper:
    """Keeps the archive within its bounds."""

    def __init__(
        self,
        database: Database,
        archive: Archive,
        household: Household,
        clock: Callable[[], datetime],
        *,
        witness: Callable[[retention.Marked], None] = lambda _: None,
    ) -> None:
        """witness: told of what is about to be removed."""
        self._database = database
        self._archive = archive
        self._household = household
        self._clock = clock
        self._witness = witness
        self._tidied_at: datetime | None = None

    def run(self, stop: Event, idle_s: float = 10.0) -> None:
        """Step until `stop` is set; a failed step is logged and tried again."""
        while not stop.is_set():
            try:
                self.step()
            except Exception:
                log.exception("housekeeping failed; trying again")
            stop.wait(idle_s)

    def step(self) -> int:
        """Look after the disk, and once an hour after what may go; returns how many files were removed."""
        now = self._clock()
        self._watch_disk(now)
        if self._tidied_at is None or now - self._tidied_at >= _TIDY_EVERY:
            self._tidied_at = now
            self._mark(now)
            self._watch_certificate(now)
        return self._remove()

    def _watch_disk(self, now: datetime) -> None:
        reason = self._archive.probe()
        with self._database.read() as connection:
            if not reason and not watch.is_on(connection, watch.AlarmKind.DISK, "archive"):
                return
        with self._database.begin() as connection:
            if reason and watch.raise_alarm(connection, watch.AlarmKind.DISK, "archive", reason, now):
                log.error("instances are refused: %s", reason)
            if not reason and watch.clear_alarm(connection, watch.AlarmKind.DISK, "archive", now):
                log.warning("the archive can be written again")

    def _watch_certificate(self, now: datetime) -> None:
        if self._household.certificate is None:
            return
        ends = expires_at(self._household.certificate)
        with self._database.begin() as connection:
            if ends - now >= RENEW_WITHIN:
                watch.clear_alarm(connection, watch.AlarmKind.CERTIFICATE, "node", now)
                return
            reason = f"this node's certificate ends at {ends:%Y-%m-%d %H:%M} UTC, and peers refuse it from then on"
            if watch.raise_alarm(connection, watch.AlarmKind.CERTIFICATE, "node", reason, now):
                log.warning("%s", reason)

    def _mark(self, now: datetime) -> None:
        for files in filter(self._household.rule.concerns, Files):
            with self._database.read() as connection:
                holdings = retention.holdings(connection, files, self._household.promising)
            marked = [
                self._mark_series(files, holding, now) for holding in due(files, holdings, self._household.rule, now)
            ]
            if any(marked):
                log.info("retention: the %s files of %d series go, %d files", files, len(marked), sum(marked))

    def _mark_series(self, files: Files, holding: Holding, now: datetime) -> int:
        """Mark the files as removed unless something happened to the series meanwhile; returns how many."""
        uid = holding.series_instance_uid
        with self._database.begin() as connection:
            retention.lock(connection, uid)
            still = retention.holdings(connection, files, self._household.promising, uid)
            if still != [holding] or why_kept(holding, now):
                return 0
            marked = retention.mark(connection, files, uid, now)
            self._witness(marked)
            return marked.files

    def _remove(self) -> int:
        """Remove the files that are marked, those of an earlier life too."""
        removed = 0
        while True:
            with self._database.read() as connection:
                if not retention.is_any_condemned(connection):
                    return removed
            # In one transaction: an instance that comes again at this moment waits, and is written anew after it.
            with self._database.begin() as connection:
                gone = retention.condemned(connection, _AT_ONCE)
                self._archive.discard(*(one.path for one in gone))
                retention.forget(connection, gone)
            removed += len(gone)

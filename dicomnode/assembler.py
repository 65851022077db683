"""Assembler: the second actor. It turns a complete series into a job, or into a record of why it is not analysed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from dicomnode.archive import Archive
from dicomnode.arrivals import Arrival, CompletenessRule, complete_groups
from dicomnode.database import Connection, Database
from dicomnode.selection import Images, Selection, select
from dicomnode.store import outbox, queue, receiving

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Group:
    """Series on which one decision is made. held: those of their study that were chosen before."""

    arrivals: list[Arrival]
    series: dict[str, Images]
    held: dict[str, Images]


class Assembler:
    """Looks for complete series."""

    def __init__(
        self,
        database: Database,
        archive: Archive,
        complete: CompletenessRule,
        selection: Selection,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._archive = archive
        self._complete = complete
        self._selection = selection
        self._clock = clock

    def run(self, stop: Event, idle_s: float = 1.0) -> None:
        """Step until `stop` is set; a failed step is logged and tried again."""
        while not stop.is_set():
            try:
                self.step()
            except Exception:
                log.exception("assembling failed; trying again")
            stop.wait(idle_s)

    def step(self) -> int:
        """Turn every series that is complete now into a job; returns how many."""
        now = self._clock()
        with self._database.read() as connection:
            complete = complete_groups(receiving.arrivals(connection), self._complete, now)
            groups = [self._gather(connection, arrivals) for arrivals in complete]
        # Files are opened here, between the transactions: the receiver could not write during the second one.
        decided = [(group, select(group.series, self._selection, group.held)) for group in groups]
        if not decided:
            return 0
        with self._database.begin() as connection:
            # Looked up again: an instance may have come since, and then the series is not complete after all.
            still = set(receiving.arrivals(connection))
            decided = [(group, verdicts) for group, verdicts in decided if still.issuperset(group.arrivals)]
            for group, verdicts in decided:
                for arrival in group.arrivals:
                    self._add_job(connection, arrival, verdicts[arrival.series_instance_uid].reason, now)
        return sum(len(group.arrivals) for group, _ in decided)

    def _add_job(self, connection: Connection, arrival: Arrival, reason: str, now: datetime) -> None:
        job_id = queue.add_job(connection, arrival, reason, now)
        outbox.cancel_superseded(connection, arrival.series_instance_uid, now)
        log.info("job %d: %s", job_id, f"not analysed: {reason}" if reason else "queued")

    def _gather(self, connection: Connection, arrivals: list[Arrival]) -> _Group:
        series = {
            a.series_instance_uid: self._images(connection, a.series_instance_uid, a.last_instance_id) for a in arrivals
        }
        if not self._selection.prefer:
            return _Group(arrivals, series, {})
        chosen = queue.chosen(connection, arrivals[0].study_instance_uid)
        return _Group(arrivals, series, {uid: self._images(connection, uid, last) for uid, last in chosen.items()})

    def _images(self, connection: Connection, series_instance_uid: str, last_instance_id: int) -> Images:
        images = receiving.images(connection, series_instance_uid, last_instance_id)
        return [(self._archive.path(image.path), image.facts) for image in images]

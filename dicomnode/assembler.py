"""Assembler: the second actor. It turns a complete series into a job, or into a record of why it is not analysed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from dicomnode.archive import Archive
from dicomnode.arrivals import Arrival, CompletenessRule, complete_groups, is_to_be_asked_for
from dicomnode.database import Connection, Database
from dicomnode.errors import Refused, Unavailable
from dicomnode.selection import Images, Selection, select
from dicomnode.store import outbox, queue, receiving

log = logging.getLogger(__name__)

_ASK_AGAIN = timedelta(seconds=30)
_MOST_ASKED = 50


@dataclass(frozen=True)
class CountSource:
    """Who knows how many instances series have. name: as reasons call it, such as "the archive PACS".

    ask: takes Study and Series Instance UID of each series; returns counts by Series Instance UID, None for one that
    the source does not know; raises Unavailable or Refused.
    """

    name: str
    ask: Callable[[Sequence[tuple[str, str]]], Mapping[str, int | None]]


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
        *,
        source: CountSource | None = None,
    ) -> None:
        """source: is asked where the rule says so."""
        self._database = database
        self._archive = archive
        self._complete = complete
        self._selection = selection
        self._clock = clock
        self._source = source
        self._away_until: datetime | None = None

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
        self._ask(now)
        with self._database.read() as connection:
            complete = complete_groups(self._arrivals(connection), self._complete, now)
            groups = [self._gather(connection, arrivals) for arrivals in complete]
        # Files are opened here, between the transactions: the receiver could not write during the second one.
        decided = [(group, select(group.series, self._selection, group.held)) for group in groups]
        if not decided:
            return 0
        with self._database.begin() as connection:
            # Looked up again: an instance may have come since, and then the series is not complete after all.
            still = set(self._arrivals(connection))
            decided = [(group, verdicts) for group, verdicts in decided if still.issuperset(group.arrivals)]
            for group, verdicts in decided:
                for arrival in group.arrivals:
                    reason = verdicts[arrival.series_instance_uid].reason or _why_not_whole(arrival)
                    self._add_job(connection, arrival, reason, now)
        return sum(len(group.arrivals) for group, _ in decided)

    def _arrivals(self, connection: Connection) -> list[Arrival]:
        return [self._complete.weigh(arrival) for arrival in receiving.arrivals(connection)]

    def _ask(self, now: datetime) -> None:
        """Ask how many instances the quiet series have. A source that is away is left in peace for a while."""
        if self._source is None or (self._away_until and now < self._away_until):
            return
        with self._database.read() as connection:
            asked = [one for one in self._arrivals(connection) if is_to_be_asked_for(one, self._complete, now)]
        if not asked:
            return
        asked = asked[:_MOST_ASKED]
        try:
            counts = self._source.ask([(one.study_instance_uid, one.series_instance_uid) for one in asked])
        except (Refused, Unavailable) as error:
            log.warning("%s does not say how many instances %d series have: %s", self._source.name, len(asked), error)
            self._away_until = now + _ASK_AGAIN
            return
        with self._database.begin() as connection:
            for one in asked:
                receiving.note_count(connection, one, counts.get(one.series_instance_uid), self._source.name)

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


def _why_not_whole(arrival: Arrival) -> str:
    """Why the files that are left of a series are not to be measured, or an empty text: all are there."""
    if not arrival.removed_count:
        return ""
    gone = f"{arrival.removed_count} of its {arrival.instance_count} instances"
    return f"{gone} were removed by retention: have the whole series sent again, then requeue this job"

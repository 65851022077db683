"""Assembler: the second actor. It turns a complete series into a job, or into a record of why it is not analysed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Event

from dicomnode.arrivals import Arrival, CompletenessRule, is_complete
from dicomnode.database import Connection, Database
from dicomnode.routing import RoutingRule, refuse_series
from dicomnode.store import queue, receiving

log = logging.getLogger(__name__)


class Assembler:
    """Looks for complete series."""

    def __init__(
        self, database: Database, complete: CompletenessRule, routing: RoutingRule, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._complete = complete
        self._routing = routing
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
            complete = [a for a in receiving.arrivals(connection) if is_complete(a, self._complete, now)]
        if not complete:
            return 0
        with self._database.begin() as connection:
            # Looked up again: an instance may have come since, and then the series is not complete after all.
            still = [a for a in receiving.arrivals(connection) if a in complete]
            for arrival in still:
                self._add_job(connection, arrival, now)
        return len(still)

    def _add_job(self, connection: Connection, arrival: Arrival, now: datetime) -> None:
        images = receiving.images(connection, arrival.series_instance_uid, arrival.last_instance_id)
        reason = refuse_series([image.facts for image in images], self._routing)
        job_id = queue.add_job(connection, arrival, reason, now)
        log.info("job %d: %d instances, %s", job_id, len(images), f"not analysed: {reason}" if reason else "queued")

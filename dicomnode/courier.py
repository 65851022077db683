"""Courier: the fourth actor. It sends what the outbox holds; each destination has a courier on a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event

from dicomnode import dimse
from dicomnode.archive import Archive
from dicomnode.database import Database
from dicomnode.deliveries import Delivery, DeliveryEvent, Outcome
from dicomnode.dimse import Peer
from dicomnode.errors import Refused, Unavailable
from dicomnode.lifecycle import Backoff, IllegalMove
from dicomnode.store import outbox

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Route:
    """Where and how one courier sends. calling_ae: this node's title."""

    name: str
    peer: Peer
    calling_ae: str
    timeout_s: float
    backoff: Backoff

    @property
    def lease_s(self) -> float:
        """Longer than an association and one instance may take; renewed after each instance."""
        return 3 * self.timeout_s


class Courier:
    """Sends the deliveries of one destination; another destination that is away does not concern it."""

    def __init__(self, database: Database, archive: Archive, route: Route, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._archive = archive
        self._route = route
        self._clock = clock

    def run(self, stop: Event, idle_s: float = 1.0) -> None:
        """Step until `stop` is set; a failed step is logged and tried again."""
        while not stop.is_set():
            try:
                self.step()
            except Exception:
                log.exception("delivering to %s failed; trying again", self._route.name)
            stop.wait(idle_s)

    def step(self) -> int:
        """Try every delivery that is due; returns how many were tried."""
        now = self._clock()
        with self._database.read() as connection:
            if not outbox.is_any_due(connection, self._route.name, now):
                return 0
        with self._database.begin() as connection:
            outbox.expire(connection, self._route.name, now)
            due = outbox.claim(connection, self._route.name, now, self._route.lease_s)
        self._send({self._archive.path(delivery.path): delivery for delivery in due})
        return len(due)

    def _send(self, open_ends: dict[Path, Delivery]) -> None:
        """Send the files and settle each; whatever is left when the association ends is tried again later."""
        route = self._route
        failure = Outcome(DeliveryEvent.POSTPONE, "the association ended before this instance was sent")
        try:
            for path, outcome in dimse.send(route.peer, route.calling_ae, list(open_ends), route.timeout_s):
                self._settle(open_ends.pop(path), outcome)
                with self._database.begin() as connection:
                    until = self._clock() + timedelta(seconds=route.lease_s)
                    outbox.renew(connection, [delivery.id for delivery in open_ends.values()], until)
        except Unavailable as error:
            failure = Outcome(DeliveryEvent.POSTPONE, str(error))
        except Refused as error:
            failure = Outcome(DeliveryEvent.REJECT, str(error))
        finally:
            for delivery in open_ends.values():
                self._settle(delivery, failure)

    def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        now = self._clock()
        values = {}
        if outcome.event is DeliveryEvent.POSTPONE:
            values = {"not_before": now + timedelta(seconds=self._route.backoff.wait_s(delivery.attempts))}
        try:
            with self._database.begin() as connection:
                outbox.settle(connection, delivery.id, outcome, now, values)
        except IllegalMove as error:
            log.warning("%s", error)  # its lease ran out meanwhile, or an operator moved it
        level = logging.INFO if outcome.event is DeliveryEvent.ACCEPT else logging.WARNING
        log.log(level, "job %d to %s: %s: %s", delivery.job_id, self._route.name, outcome.event, outcome.reason)

"""Courier: the fourth actor. It sends what the outbox holds; each destination has a courier on a thread of its own."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, Protocol
from uuid import uuid4

from dicomnode import dimse
from dicomnode.archive import Archive
from dicomnode.database import Connection, Database
from dicomnode.deliveries import Delivery, DeliveryEvent, Outcome, Patience
from dicomnode.dimse import commitment
from dicomnode.errors import Refused, Unavailable
from dicomnode.lifecycle import IllegalMove
from dicomnode.notary import Notary
from dicomnode.store import commitments, outbox, watch

log = logging.getLogger(__name__)

_LINGER_S = 1.0  # for archives that report on the association of the request


class Sender(Protocol):
    """How instances get to a destination."""

    @property
    def timeout_s(self) -> float:
        """How long a connection, and an answer, may take."""

    def send(self, files: Sequence[Path]) -> Iterator[tuple[Path, Outcome]]:
        """Send the files, and yield what became of each by its own status.

        Raises Unavailable where the destination is away, Refused where it takes nothing of the kind; what was yielded
        before stands, the rest was not sent.
        """


@dataclass(frozen=True)
class Route:
    """Where and how one courier sends. committer: who is asked for storage commitment; None: nobody."""

    name: str
    sender: Sender
    patience: Patience
    committer: dimse.Line | None = None

    @property
    def lease_s(self) -> float:
        """Longer than a connection and one instance may take; renewed after each instance."""
        return 3 * self.sender.timeout_s


class Courier:
    """Sends the deliveries of one destination; another destination that is away does not concern it."""

    def __init__(
        self,
        database: Database,
        archive: Archive,
        route: Route,
        clock: Callable[[], datetime],
        *,
        draw: Callable[[], float] = random.random,
        witness: Callable[[Sequence[tuple[Delivery, Outcome]]], None] = lambda _: None,
    ) -> None:
        """draw: the chance that waits are spread by, from 0 to 1. witness: told what became of each thing sent."""
        self._database = database
        self._archive = archive
        self._route = route
        self._clock = clock
        self._draw = draw
        self._witness = witness
        titles = {route.name: route.committer.peer.ae_title} if route.committer else {}
        self._notary = Notary(database, titles, route.patience, clock)

    def run(self, stop: Event, idle_s: float = 1.0) -> None:
        """Step until `stop` is set; a failed step is logged and tried again."""
        while not stop.is_set():
            try:
                self.step()
            except Exception:
                log.exception("delivering to %s failed; trying again", self._route.name)
            stop.wait(idle_s)

    def step(self) -> int:
        """Try every delivery that is due, and ask for what is to be confirmed; returns how many were sent or tried."""
        tried = self._deliver()
        self._ask()
        self._watch()
        return tried

    def _deliver(self) -> int:
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
        """Send the files and settle each; whatever is left when the connection ends is tried again later."""
        route = self._route
        failure = Outcome(DeliveryEvent.POSTPONE, "the connection ended before this instance was sent")
        chance = self._draw()  # one for all, so that what is sent together stays together
        attempts: list[tuple[Delivery, Outcome]] = []
        try:
            for path, outcome in route.sender.send(list(open_ends)):
                attempts.append((open_ends.pop(path), outcome))
                self._settle(*attempts[-1], chance)
                with self._database.begin() as connection:
                    until = self._clock() + timedelta(seconds=route.lease_s)
                    outbox.renew(connection, [delivery.id for delivery in open_ends.values()], until)
        except Unavailable as error:
            failure = Outcome(DeliveryEvent.POSTPONE, str(error))
        except Refused as error:
            failure = Outcome(DeliveryEvent.REJECT, str(error))
        finally:
            for delivery in open_ends.values():
                self._settle(delivery, failure, chance)
        if attempts:
            self._witness(attempts)

    def _settle(self, delivery: Delivery, outcome: Outcome, chance: float) -> None:
        now, patience = self._clock(), self._route.patience
        values: dict[str, Any] = {}
        if outcome.event is DeliveryEvent.ACCEPT:
            values = {"report_until": None if patience.report_s is None else now}  # due to be asked for at once
        elif outcome.event is DeliveryEvent.POSTPONE:
            values = {"not_before": now + timedelta(seconds=patience.backoff.wait_s(delivery.attempts, chance))}
        with self._database.begin() as connection:
            self._move(connection, delivery, patience.bound(delivery, outcome, now), values)

    def _move(self, connection: Connection, delivery: Delivery, outcome: Outcome, values: dict[str, Any]) -> None:
        """Settle a delivery, unless it is no longer where this courier left it."""
        try:
            outbox.settle(connection, delivery.id, outcome, self._clock(), values)
        except IllegalMove as error:
            log.info("%s", error)  # a report was faster, its lease ran out, or an operator moved it
            return
        fine = outcome.event in (DeliveryEvent.ACCEPT, DeliveryEvent.CONFIRM)
        level = logging.INFO if fine else logging.WARNING
        log.log(level, "job %d to %s: %s: %s", delivery.job_id, self._route.name, outcome.event, outcome.reason)

    def _ask(self) -> None:
        """Ask for the commitment to what was sent and, where no report came in time, ask again."""
        now, report_s, committer = self._clock(), self._route.patience.report_s, self._route.committer
        if report_s is None or committer is None:
            return
        with self._database.read() as connection:
            if not commitments.is_any_to_ask(connection, self._route.name, now):
                return
        transaction_uid = f"2.25.{uuid4().int}"  # PS3.5 B.2
        until = now + timedelta(seconds=report_s)
        asked = []
        with self._database.begin() as connection:
            commitments.adopt(connection, self._route.name, now)
            for delivery in commitments.to_ask(connection, self._route.name, now):
                if self._route.patience.is_over(delivery, now):
                    silent = Outcome(DeliveryEvent.POSTPONE, "no report on the storage commitment")
                    self._move(connection, delivery, self._route.patience.bound(delivery, silent, now), {})
                else:
                    commitments.ask(connection, delivery.id, transaction_uid, now, until)
                    asked.append(delivery)
        if asked:
            self._request(committer, commitment.Request(transaction_uid, asked))

    def _request(self, committer: dimse.Line, request: commitment.Request) -> None:
        try:
            commitment.ask(committer, request, self._notary.take, linger_s=_LINGER_S)
            log.info("%s was asked to commit to %d instances", self._route.name, len(request.deliveries))
        except (Unavailable, Refused) as error:
            self._put_off(request.deliveries, str(error))

    def _put_off(self, asked: Sequence[Delivery], reason: str) -> None:
        now, chance, backoff = self._clock(), self._draw(), self._route.patience.backoff
        with self._database.begin() as connection:
            for delivery in asked:
                wait_s = backoff.wait_s(commitments.count_asked(connection, delivery.id), chance)
                values = {"report_until": now + timedelta(seconds=wait_s)}
                outcome = self._route.patience.bound(delivery, Outcome(DeliveryEvent.POSTPONE, reason), now)
                self._move(connection, delivery, outcome, values)

    def _watch(self) -> None:
        """Switch the alarm on while what was sent is unconfirmed twice as long as a report may take, and off again."""
        now, name, report_s = self._clock(), self._route.name, self._route.patience.report_s
        kind = watch.AlarmKind.CONFIRMATION
        overdue = 0
        with self._database.read() as connection:
            is_on = watch.is_on(connection, kind, name)
            if report_s is not None:
                overdue = commitments.count_overdue(connection, name, now - timedelta(seconds=2 * report_s))
        if bool(overdue) == is_on:
            return
        with self._database.begin() as connection:
            if overdue:
                watch.raise_alarm(connection, kind, name, f"{overdue} results are sent, but not confirmed in time", now)
            else:
                watch.clear_alarm(connection, kind, name, now)

"""Notary: takes down what archives report of storage commitments, whichever association brings it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from dicomnode.database import Connection, Database
from dicomnode.deliveries import DeliveryEvent, DeliveryState, Outcome, Patience, Report, judge_failure
from dicomnode.dimse import Denial, DenialKind, Service, commitment
from dicomnode.dimse.commitment import Reporter
from dicomnode.store import commitments, outbox
from dicomnode.store.commitments import Asked

log = logging.getLogger(__name__)

_CONFIRMABLE = (DeliveryState.SENT, DeliveryState.PARKED)


class Notary:
    """Confirms deliveries by the word of the archive that was asked, and of no other."""

    def __init__(
        self,
        database: Database,
        titles: Mapping[str, str],
        patience: Patience,
        clock: Callable[[], datetime],
        *,
        deny: Callable[[Denial], None] = lambda _: None,
    ) -> None:
        """titles: the AE title of each destination by its name. deny: told of each report that is refused."""
        self._database = database
        self._deny = deny
        self._titles = titles
        self._patience = patience
        self._clock = clock

    def service(self) -> Service:
        """What the listener offers to archives."""
        return commitment.reports(self.take)

    def take(self, report: Report, reporter: Reporter) -> int:
        """Settle the deliveries that a report is about; returns the status to answer. Raises Unavailable.

        A report that came before, or that says nothing of some instances, is answered by success too; what it does not
        say is asked again in time. An unknown transaction and a stranger are refused.
        """
        now = self._clock()
        with self._database.begin() as connection:
            asked = commitments.asked(connection, report.transaction_uid)
            if refusal := self._refusal(asked, reporter):
                status, reason = refusal
                self._deny(Denial(DenialKind.REPORT, reporter.ae_title, reporter.address, reason))
                return status
            for one in asked:
                self._settle(connection, one, report, now)
        return commitment.SUCCESS

    def _refusal(self, asked: Sequence[Asked], reporter: Reporter) -> tuple[int, str] | None:
        if not asked:
            return commitment.INVALID_ARGUMENT, "report on an unknown storage commitment"
        if reporter.ae_title != self._titles.get(asked[0].delivery.destination):
            return commitment.NOT_AUTHORISED, "report on a storage commitment that another archive was asked for"
        return None

    def _settle(self, connection: Connection, asked: Asked, report: Report, now: datetime) -> None:
        delivery, values = asked.delivery, dict[str, Any]()
        if delivery.sop_instance_uid in report.committed and asked.state in _CONFIRMABLE:
            outcome = Outcome(DeliveryEvent.CONFIRM, f"committed, transaction {report.transaction_uid}")
        elif delivery.sop_instance_uid in report.failed and asked.state is DeliveryState.SENT and asked.is_last:
            verdict = judge_failure(report.failed[delivery.sop_instance_uid])
            outcome = self._patience.bound(delivery, verdict, now)
            due = now + timedelta(seconds=self._patience.backoff.wait_s(delivery.denials + 1))
            values = {"report_until" if verdict.event is DeliveryEvent.POSTPONE else "not_before": due}
        else:
            return  # known already, overtaken by a later transaction, or not mentioned
        outbox.settle(connection, delivery.id, outcome, now, values)
        level = logging.INFO if outcome.event is DeliveryEvent.CONFIRM else logging.WARNING
        log.log(level, "job %d to %s: %s: %s", delivery.job_id, delivery.destination, outcome.event, outcome.reason)

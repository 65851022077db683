"""Auditor: puts on the audit trail what the actors tell it, and has the trail forwarded. It holds nobody up."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any

from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.audit import events
from dicomnode.audit.alerts import Alerts
from dicomnode.audit.events import Query, Result, Study, Transfer
from dicomnode.audit.forwarding import Forwarder
from dicomnode.audit.messages import Action, Code, Entity, Outcome, Source
from dicomnode.audit.syslog import send_tls, send_udp
from dicomnode.audit.trail import Trail
from dicomnode.audit.transfers import Transfers
from dicomnode.database import Database
from dicomnode.deliveries import Delivery, DeliveryEvent
from dicomnode.deliveries import Outcome as DeliveryOutcome
from dicomnode.dimse import Denial, DenialKind, SentQuery, client_context
from dicomnode.errors import Unavailable
from dicomnode.jobs import Job
from dicomnode.settings import Settings
from dicomnode.store import retention, subjects, watch

log = logging.getLogger(__name__)

TRAIL, SYSLOG = "audit", "syslog"
"""What the alarms of the audit trail are about."""

_MOST_STUDIES = 50  # in a message, which stays below what syslog servers take

_ALERTS: dict[DenialKind, Code] = {
    DenialKind.TLS: events.NODE_AUTHENTICATION,
    DenialKind.CALLER: events.NODE_AUTHENTICATION,
    DenialKind.CALLED: events.NODE_AUTHENTICATION,
    DenialKind.REPORT: events.NODE_AUTHENTICATION,
    DenialKind.RATE: events.RESTRICTED_FUNCTION,
    DenialKind.SIZE: events.RESTRICTED_FUNCTION,
    DenialKind.PROTOCOL: events.RESTRICTED_FUNCTION,
}
"""Denials that are security alerts; silence and too many at once are everyday life."""

_OUTCOMES = {
    DeliveryEvent.ACCEPT: Outcome.SUCCESS,
    DeliveryEvent.POSTPONE: Outcome.MINOR,
    DeliveryEvent.REJECT: Outcome.SERIOUS,
}


class _Transfer:
    """Stands for what comes in together where there is no association; it is settled by whom it belongs to."""

    def is_alive(self) -> bool:
        return True


class Auditor:
    """What this process of the node reports (PS3.15 A.5.3)."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], datetime]) -> None:
        """Open the trail. Raises Misconfigured where it cannot be written, or TLS cannot be spoken."""
        self._database = database
        self._clock = clock
        host = socket.gethostname()
        title = settings.listener.ae_title
        self.node = Entity(str(os.getpid()), title, host)
        source = Source(settings.audit.source_id or f"{title}@{host}", settings.audit.enterprise_site_id)
        self.trail = Trail(settings.audit_folder, source, self.node, self._alarm(TRAIL))
        self._transfers = Transfers(self.trail)
        self._alerts = Alerts(self.trail)
        self._forwarder = self._build_forwarder(settings)

    def start(self, *, listens: bool) -> None:
        """The node starts; listens: others will be able to reach it."""
        now = self._clock()
        self.trail.record(events.application_started(self.node, now))
        if listens:
            self.trail.record(events.network_entered(self.node, now))

    def stop(self, *, listens: bool) -> None:
        """The node has stopped."""
        self.settle(is_over=lambda _: True)
        now = self._clock()
        if listens:
            self.trail.record(events.network_left(self.node, now))
        self.trail.record(events.application_stopped(self.node, now))

    def watch(self, stop: Event, every_s: float = 1.0) -> None:
        """Until `stop` is set, report what came over associations that are over, and repeated alerts."""
        while not stop.wait(every_s):
            self.settle(is_over=lambda association: not association.is_alive())

    @property
    def forward(self) -> Callable[[Event], None] | None:
        """What forwards the trail until its argument is set; None: there is no syslog server."""
        return self._forwarder.run if self._forwarder else None

    def settle(self, is_over: Callable[[Any], bool]) -> None:
        """Report what is over by now. is_over: whether an association is."""
        self._transfers.settle(is_over)
        self._alerts.settle(self._clock())

    def stored(self, association: Any, instance: StoredInstance, is_new: bool) -> None:
        """An association brought an instance, a new one or one that was here. It is not yet acknowledged."""
        sender = Entity.peer(instance.calling_ae, association.requestor.address)
        self._transfers.add(association, sender, instance, is_new=is_new)

    @contextmanager
    def receiving(self, sender: Entity) -> Iterator[Callable[[StoredInstance, bool], None]]:
        """While something comes in on another way than the listener: what is to be told of each instance."""
        transfer = _Transfer()
        try:
            yield lambda instance, is_new: self._transfers.add(transfer, sender, instance, is_new=is_new)
        finally:
            self._transfers.settle(lambda one: one is transfer)

    def denied(self, denial: Denial) -> None:
        """The listener denied a peer something."""
        if alert := _ALERTS.get(denial.kind):
            self._alerts.sound(Entity.peer(denial.calling_ae, denial.address), alert, denial.reason, self._clock())

    def used(self, job: Job) -> None:
        """The series of a job is analysed. Raises Unavailable."""
        with self._database.read() as connection:
            subject = subjects.of_jobs(connection, [job.id])[job.id]
        study = Study(subject.study_instance_uid, subject.patient, {})
        self.trail.record(events.instances_accessed(self.node, study, Action.READ, self._clock()))

    def sent(self, archive: Entity, attempts: Sequence[tuple[Delivery, DeliveryOutcome]]) -> None:
        """What became of the deliveries that went to an archive together. Raises Unavailable."""
        with self._database.read() as connection:
            known = subjects.of_jobs(connection, {delivery.job_id for delivery, _ in attempts})
        counts: dict[tuple[subjects.Subject, Result], Counter[str]] = {}
        for delivery, outcome in attempts:
            reason = "" if outcome.event is DeliveryEvent.ACCEPT else outcome.reason
            result = Result(Action.READ, _OUTCOMES[outcome.event], reason)
            counts.setdefault((known[delivery.job_id], result), Counter())[delivery.sop_class_uid] += 1
        now = self._clock()
        for (subject, result), sop_classes in counts.items():
            study = Study(subject.study_instance_uid, subject.patient, sop_classes)
            self.trail.record(events.instances_transferred(Transfer(self.node, archive, study), result, now))

    def asked(self, archive: Entity, sent: SentQuery) -> None:
        """An archive is asked."""
        query = Query(sent.sop_class_uid, sent.transfer_syntax_uid, sent.identifier)
        self.trail.record(events.query_sent(self.node, archive, query, self._clock()))

    def removed(self, marked: retention.Marked) -> None:
        """Retention removes a part of a study, or all that is left of it."""
        study = Study(marked.study_instance_uid, marked.patient, marked.sop_classes)
        if marked.is_whole_study:
            self.trail.record(events.study_deleted(self.node, study, self._clock()))
        else:
            self.trail.record(events.instances_accessed(self.node, study, Action.DELETE, self._clock()))

    def viewed(self, user: str, address: str, subject: subjects.Subject) -> None:
        """A person is shown data or images of a study. user: empty where the node knows no users."""
        study, person = (
            Study(subject.study_instance_uid, subject.patient, {}),
            Entity(user or "unidentified", "", address),
        )
        self.trail.record(events.instances_accessed(self.node, study, Action.READ, self._clock(), person))

    def signed_in(self, user: str, address: str, *, succeeded: bool) -> None:
        """A person signed in, or tried to."""
        self._authenticated(user, address, events.LOGIN, "" if succeeded else "the name, password or token is wrong")

    def signed_out(self, user: str, address: str) -> None:
        """A person signed out."""
        self._authenticated(user, address, events.LOGOUT, "")

    def _authenticated(self, user: str, address: str, kind: Code, reason: str) -> None:
        person = Entity(user, "", address)
        self.trail.record(events.user_authenticated(self.node, person, kind, self._clock(), reason=reason))

    def corrected(self, user: str, address: str, subject: subjects.Subject) -> None:
        """A person marked a result of a study as invalid, or lifted the mark."""
        study, person = Study(subject.study_instance_uid, subject.patient, {}), Entity(user, "", address)
        self.trail.record(events.instances_accessed(self.node, study, Action.UPDATE, self._clock(), person))

    def exported(self, user: str, uri: str, about: Collection[subjects.Subject], address: str = "") -> None:
        """A person had data of studies put into a file. address: where the person sits; empty: at this machine."""
        person, everything = Entity(user, "", address or self.node.address), list(about)
        for start in range(0, len(everything), _MOST_STUDIES):
            studies = [
                Study(one.study_instance_uid, one.patient, {}) for one in everything[start : start + _MOST_STUDIES]
            ]
            self.trail.record(events.data_exported(self.node, person, uri, studies, self._clock()))

    def merged(self, user: str, address: str, patients: Sequence[Patient]) -> None:
        """A person said that patients are one, or took that back."""
        person = Entity(user, "", address)
        self.trail.record(events.patients_linked(self.node, person, patients, self._clock()))

    def _build_forwarder(self, settings: Settings) -> Forwarder | None:
        audit = settings.audit
        if audit.syslog_host is None:
            return None
        if audit.syslog_protocol == "udp":
            send = partial(send_udp, audit.syslog_host, audit.port)
        else:
            context = client_context(settings.tls, self._clock(), audit.syslog_ca)
            send = partial(send_tls, audit.syslog_host, audit.port, context)
        return Forwarder(self.trail.folder, send, self._alarm(SYSLOG))

    def _alarm(self, subject: str) -> Callable[[str | None], None]:
        def report(reason: str | None) -> None:
            try:
                with self._database.read() as connection:  # who records may hold a transaction that writes
                    is_on = watch.is_on(connection, watch.AlarmKind.SECURITY, subject)
                if reason is None and not is_on:
                    return
                with self._database.begin() as connection:
                    if reason is None:
                        watch.clear_alarm(connection, watch.AlarmKind.SECURITY, subject, self._clock())
                    else:
                        watch.raise_alarm(connection, watch.AlarmKind.SECURITY, subject, reason, self._clock())
            except Unavailable as error:
                log.error("the alarm of the audit trail is only here: %s: %s", reason or "over", error)

        return report

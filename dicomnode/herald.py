"""Herald: the actor that tells people and other systems what happened; each notification has a herald on a thread."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Protocol

from dicomnode.arrivals import Patient
from dicomnode.database import Connection, Database
from dicomnode.discretion import scrub
from dicomnode.errors import Misconfigured, Unavailable
from dicomnode.history import Band, Change, timeline
from dicomnode.lifecycle import Backoff
from dicomnode.mail import Mailbox
from dicomnode.notices import Message, Notice, NoticeState, Persistence, compose, message_key
from dicomnode.notification_settings import HeraldSettings, MailSettings, NotificationSettings
from dicomnode.sections import HistorySettings
from dicomnode.settings import Settings
from dicomnode.store import history, notices, watch
from dicomnode.topics import Topic
from dicomnode.webhook import Webhook

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 100
_LEASE_TIMEOUTS = 10  # an exchange has a handful of answers to wait for, each for a time-out at most


class Channel(Protocol):
    """The way to a recipient."""

    def tell(self, message: Message, now: datetime) -> str:
        """Hand a message over; what the other side said. Raises Unavailable."""


@dataclass(frozen=True)
class Recipient:
    """Who is told, in which words, by which way, and for how long it is tried. node: its AE title.

    bands: what changes of a volume are told.
    """

    node: str
    bands: HistorySettings
    notification: NotificationSettings
    channel: Channel
    persistence: Persistence
    lease_s: float


class Herald:
    """Tells the notices of one notification; another one whose server is away does not concern it."""

    def __init__(self, database: Database, recipient: Recipient, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._recipient = recipient
        self._clock = clock
        self._name = recipient.notification.name

    def run(self, stop: Event, idle_s: float = 2.0) -> None:
        """Step until `stop` is set; a failed step is logged and tried again."""
        while not stop.is_set():
            try:
                self.step()
            except Exception as error:  # noqa: BLE001 - logged without the text, which may quote a patient's data
                log.error("telling %s failed; trying again: %s", self._name, scrub(error))
            stop.wait(idle_s)

    def step(self) -> int:
        """Tell what is due, oldest first, until one cannot be told; returns how many were."""
        told = 0
        while told < _MOST_AT_ONCE:
            now = self._clock()
            with self._database.read() as connection:
                if not notices.is_any_due(connection, self._name, now):
                    return told
            with self._database.begin() as connection:
                notice = notices.claim(connection, self._name, now, self._recipient.lease_s)
            if notice is None or not self._tell(notice):
                return told
            told += 1
        return told

    def _tell(self, notice: Notice) -> bool:
        with self._database.read() as connection:
            message = self._compose(connection, notice)
        if message is None:
            with self._database.begin() as connection:
                notices.settle(connection, notice.id, NoticeState.MOOT, "there is nothing to tell any more")
            return True
        try:
            outcome = self._recipient.channel.tell(message, self._clock())
        except Unavailable as error:
            self._put_off(notice, str(error))
            return False
        with self._database.begin() as connection:
            notices.settle(connection, notice.id, NoticeState.TOLD, outcome)
            watch.clear_alarm(connection, watch.AlarmKind.NOTICE, self._name, self._clock())
        log.info("notice %d: %s told to %s: %s", notice.id, notice.topic, self._name, outcome)
        return True

    def _put_off(self, notice: Notice, reason: str) -> None:
        now = self._clock()
        until = self._recipient.persistence.next_try(notice, now)
        with self._database.begin() as connection:
            if until is not None:
                notices.postpone(connection, notice.id, until, reason)
            else:
                notices.settle(connection, notice.id, NoticeState.PARKED, reason)
                watch.raise_alarm(connection, watch.AlarmKind.NOTICE, self._name, reason, now)
        log.warning("notice %d: %s not told to %s: %s", notice.id, notice.topic, self._name, reason)

    def _compose(self, connection: Connection, notice: Notice) -> Message | None:
        """The notice in words; None: what it was about is no longer so."""
        settings = self._recipient.notification
        fields = {
            "node": self._recipient.node,
            "event": str(notice.topic),
            "at": notice.created_at.astimezone(UTC).isoformat(timespec="seconds"),
            "reason": notice.reason,
            "job": "" if notice.job_id is None else str(notice.job_id),
            "alarm": "" if notice.alarm_id is None else notices.alarm(connection, notice.alarm_id),
        }
        about = f"job {fields['job']}" if fields["job"] else f"alarm {fields['alarm']}"
        fields["summary"] = f"{about}: {notice.topic.words}"
        change = None
        if notice.topic is Topic.VOLUME_CHANGED and (change := self._change(connection, notice.job_id)) is None:
            return None
        if settings.include_patient and notice.job_id is not None:
            fields |= notices.patient_fields(connection, notice.job_id) | _figures(change)
        key = message_key(fields["node"], self._name, str(notice.id), fields["at"])
        return compose(key, (settings.subject, settings.template), fields)

    def _change(self, connection: Connection, job_id: int | None) -> Change | None:
        """What a job's volume changed by since the one before it, where that is beyond the bands."""
        point = None if job_id is None else history.of_job(connection, job_id)
        if point is None:
            return None
        patient = Patient(point.patient_id, point.issuer_of_patient_id)
        for entry in timeline(history.points(connection, patient), self._recipient.bands):
            if entry.point.job_id == job_id and entry.previous and entry.previous.band is Band.BEYOND:
                return entry.previous
        return None


def _figures(change: Change | None) -> dict[str, str]:
    if change is None:
        return {}
    return {
        "volume_ml": f"{(change.since.volume_ml or 0) + change.ml:.1f}",
        "change_ml": f"{change.ml:+.1f}",
        "change_percent": f"{change.percent:+.1f}",
        "previous_acquired_at": change.since.acquired_at,
    }


def recipients(settings: Settings) -> list[Recipient]:
    """Everyone that the settings name. Raises Misconfigured: a file cannot be read, or e-mail has no server."""
    herald, node = settings.herald, settings.listener.ae_title
    persistence = Persistence(Backoff(herald.retry_seconds, herald.retry_cap_seconds), herald.give_up_hours * 3600)
    lease_s = _LEASE_TIMEOUTS * herald.timeout_seconds
    return [
        Recipient(node, settings.history, one, _channel(one, settings.mail, herald), persistence, lease_s)
        for one in settings.notifications
    ]


def subscriptions(settings: Settings) -> dict[str, tuple[Topic, ...]]:
    """Which notification wants to be told of what."""
    return {one.name: one.events for one in settings.notifications}


def _channel(one: NotificationSettings, mail: MailSettings, herald: HeraldSettings) -> Channel:
    place = f"notifications {one.name!r}"
    if one.kind == "webhook":
        secret = b"" if one.secret_file is None else _read_secret(f"{place}: secret_file", one.secret_file)
        security = _security(f"{place}: ca", one.ca) if one.url.startswith("https") else None
        return Webhook(one.url, secret, security, herald.timeout_seconds)
    if not mail.host:
        raise Misconfigured(f"{place}: mail.host is not set, and e-mail needs it")
    if one.include_patient and mail.security == "none":
        raise Misconfigured(f"{place}: include_patient needs mail.security")
    password = "" if mail.password_file is None else _read_secret("mail.password_file", mail.password_file).decode()
    security = None if mail.security == "none" else _security("mail.ca", mail.ca)
    return Mailbox(mail, one.recipients, password, security, herald.timeout_seconds)


def _read_secret(place: str, file: Path) -> bytes:
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise Misconfigured(f"{place}: {file}: {error.strerror}") from None
    if not secret:
        raise Misconfigured(f"{place}: {file} is empty")
    return secret


def _security(place: str, ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, with a server that proves its name by `ca`, or by the system's authorities."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise Misconfigured(f"{place}: {ca}: {error.strerror or 'holds no certificate'}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

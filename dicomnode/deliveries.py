"""Delivery: one result on its way to one destination, its states and moves as a table, how long it is tried. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dicomnode.lifecycle import Backoff


class DeliveryState(StrEnum):
    """Where a delivery stands. *Sent* and *confirmed* mean that the archive said so of this instance, nothing less."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    PARKED = "parked"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DeliveryEvent(StrEnum):
    """What moves a delivery."""

    CLAIM = "claim"
    ACCEPT = "accept"
    POSTPONE = "postpone"
    EXPIRE = "expire"
    REJECT = "reject"
    PARK = "park"
    ASK = "ask"
    CONFIRM = "confirm"
    DENY = "deny"
    REQUEUE = "requeue"
    CANCEL = "cancel"


MOVES: dict[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.PENDING, DeliveryEvent.CLAIM): DeliveryState.SENDING,
    (DeliveryState.SENDING, DeliveryEvent.ACCEPT): DeliveryState.SENT,
    (DeliveryState.SENDING, DeliveryEvent.POSTPONE): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.EXPIRE): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.REJECT): DeliveryState.FAILED,
    (DeliveryState.SENDING, DeliveryEvent.PARK): DeliveryState.PARKED,
    (DeliveryState.SENT, DeliveryEvent.ASK): DeliveryState.SENT,
    (DeliveryState.SENT, DeliveryEvent.POSTPONE): DeliveryState.SENT,
    (DeliveryState.SENT, DeliveryEvent.CONFIRM): DeliveryState.CONFIRMED,
    (DeliveryState.SENT, DeliveryEvent.DENY): DeliveryState.PENDING,
    (DeliveryState.SENT, DeliveryEvent.REJECT): DeliveryState.FAILED,
    (DeliveryState.SENT, DeliveryEvent.PARK): DeliveryState.PARKED,
    (DeliveryState.PARKED, DeliveryEvent.CONFIRM): DeliveryState.CONFIRMED,
    (DeliveryState.PENDING, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.SENT, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.CONFIRMED, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.PARKED, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.FAILED, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.CANCELLED, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.PENDING, DeliveryEvent.CANCEL): DeliveryState.CANCELLED,
    (DeliveryState.PARKED, DeliveryEvent.CANCEL): DeliveryState.CANCELLED,
    (DeliveryState.FAILED, DeliveryEvent.CANCEL): DeliveryState.CANCELLED,
}

STUCK = (DeliveryState.PARKED, DeliveryState.FAILED)
"""What only a person, or a late word of the archive, moves on."""


@dataclass(frozen=True)
class Delivery:
    """One result for one destination.

    path: of the file, relative to the archive. attempts: how often it was claimed. denials: how often the archive did
    not commit to it. since: when it was put into the outbox or back into it, or was sent and is to be confirmed.
    """

    id: int
    job_id: int
    destination: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    attempts: int
    denials: int
    since: datetime


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt: the event, and a reason that names the DICOM status."""

    event: DeliveryEvent
    reason: str


@dataclass(frozen=True)
class Report:
    """What an archive says of a transaction of storage commitment (PS3.4 J.3.3).

    committed: SOP Instance UIDs that it holds and will keep. failed: SOP Instance UID -> Failure Reason (0008,1197).
    """

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]


@dataclass(frozen=True)
class Patience:
    """How long a delivery is tried.

    give_up_s: counted from `Delivery.since`. report_s: how long the report of a storage commitment may take; None: the
    destination offers none. most_sendings: to an archive that takes an instance and then does not commit to it.
    """

    backoff: Backoff
    give_up_s: float
    report_s: float | None = None
    most_sendings: int = 3

    def bound(self, delivery: Delivery, outcome: Outcome, now: datetime) -> Outcome:
        """The outcome, or parking where a further try is no longer due."""
        if outcome.event is DeliveryEvent.POSTPONE and self.is_over(delivery, now):
            waited_h = (now - delivery.since) / timedelta(hours=1)
            return Outcome(DeliveryEvent.PARK, f"{outcome.reason}; given up after {waited_h:.0f} h")
        if outcome.event is DeliveryEvent.DENY and delivery.denials + 1 >= self.most_sendings:
            return Outcome(DeliveryEvent.PARK, f"{outcome.reason}; given up after {delivery.denials + 1} sendings")
        return outcome

    def is_over(self, delivery: Delivery, now: datetime) -> bool:
        """Whether the delivery has been tried for long enough."""
        return (now - delivery.since).total_seconds() >= self.give_up_s


_WARNINGS = {
    0xB000: "coercion of data elements",
    0xB006: "elements discarded",
    0xB007: "data set does not match SOP class",
    0x0107: "attribute list error",
    0x0116: "attribute value out of range",
    0x0111: "duplicate SOP instance: the archive has it already",
}
_PASSING = {
    0x0110: "processing failure",
    0x0210: "duplicate invocation",
    0x0213: "resource limitation",
    0xFE00: "cancelled",
}
_FINAL = {
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0117: "invalid SOP instance",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
}


def judge(status: int) -> Outcome:
    """Turn a C-STORE status (PS3.4 Table B.2-1, PS3.7 9.1.1.1.9 and Annex C) into what happens next.

    Success and every warning (0xBxxx, 0x0001, 0x0107, 0x0116; PS3.7 C.1) are accepted, and so is 0x0111, since the
    archive has the instance. 0xA7xx and what speaks of the moment, not of the instance, is tried again. All else is
    final.
    """
    code = f"0x{status:04X}"
    if status == 0x0000:
        return Outcome(DeliveryEvent.ACCEPT, f"{code} success")
    if status in _WARNINGS or status == 0x0001 or status >> 12 == 0xB:
        return Outcome(DeliveryEvent.ACCEPT, f"{code} warning: {_WARNINGS.get(status, 'not in the standard')}")
    if status >> 8 == 0xA7:
        return Outcome(DeliveryEvent.POSTPONE, f"{code} the archive is out of resources")
    if status in _PASSING:
        return Outcome(DeliveryEvent.POSTPONE, f"{code} {_PASSING[status]} in the archive")
    return Outcome(DeliveryEvent.REJECT, f"{code} refused by the archive: {_why_final(status)}")


def _why_final(status: int) -> str:
    if status >> 8 == 0xA9:
        return "data set does not match SOP class"
    if status >> 12 == 0xC:
        return "it cannot understand the data set"
    return _FINAL.get(status, "status not known for storage")


_FAILURES = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class-instance conflict",
    0x0122: "referenced SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}


def judge_failure(failure_reason: int) -> Outcome:
    """Turn the Failure Reason of an instance in a commitment's report (PS3.3 C.14.1.1) into what happens next.

    The instance is sent again; where that cannot help it is rejected; where the transaction is at fault, postponed.
    """
    reason = f"not committed: 0x{failure_reason:04X} {_FAILURES.get(failure_reason, 'reason not in the standard')}"
    if failure_reason in (0x0119, 0x0122):
        return Outcome(DeliveryEvent.REJECT, reason)
    return Outcome(DeliveryEvent.POSTPONE if failure_reason == 0x0131 else DeliveryEvent.DENY, reason)

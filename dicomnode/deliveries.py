"""Delivery: one result on its way to one destination, its states and moves as a table. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DeliveryState(StrEnum):
    """Where a delivery stands. *Sent* means that the archive said so for this instance, nothing less."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


class DeliveryEvent(StrEnum):
    """What moves a delivery."""

    CLAIM = "claim"
    ACCEPT = "accept"
    POSTPONE = "postpone"
    EXPIRE = "expire"
    REJECT = "reject"
    REQUEUE = "requeue"


MOVES: dict[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.PENDING, DeliveryEvent.CLAIM): DeliveryState.SENDING,
    (DeliveryState.SENDING, DeliveryEvent.ACCEPT): DeliveryState.SENT,
    (DeliveryState.SENDING, DeliveryEvent.POSTPONE): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.EXPIRE): DeliveryState.PENDING,
    (DeliveryState.SENDING, DeliveryEvent.REJECT): DeliveryState.FAILED,
    (DeliveryState.PENDING, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.SENT, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.FAILED, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
}


@dataclass(frozen=True)
class Delivery:
    """One result for one destination. path: of the file, relative to the archive."""

    id: int
    job_id: int
    destination: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    attempts: int


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt: the event, and a reason that names the DICOM status."""

    event: DeliveryEvent
    reason: str


_WARNINGS = {
    0xB000: "coercion of data elements",
    0xB006: "elements discarded",
    0xB007: "data set does not match SOP class",
    0x0107: "attribute list error",
    0x0116: "attribute value out of range",
    0x0111: "duplicate SOP instance: the archive has it already",
}


def judge(status: int) -> Outcome:
    """Turn a C-STORE status (PS3.4 Table B.2-1, PS3.7 Annex C) into what happens next.

    Success and the warnings are accepted, 0xA7xx (out of resources) and the like are tried again, all else is final.
    """
    if status == 0x0000:
        return Outcome(DeliveryEvent.ACCEPT, "0x0000 success")
    if status in _WARNINGS:
        return Outcome(DeliveryEvent.ACCEPT, f"0x{status:04X} warning: {_WARNINGS[status]}")
    if status & 0xFF00 == 0xA700 or status in (0x0110, 0x0213):
        return Outcome(
            DeliveryEvent.POSTPONE, f"0x{status:04X} the archive is out of resources or failed in processing"
        )
    return Outcome(DeliveryEvent.REJECT, f"0x{status:04X} refused by the archive")

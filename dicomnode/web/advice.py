"""What a person can do about what went wrong. Pure; the same advice as docs/operations.md, in one sentence."""

from __future__ import annotations

from dicomnode.deliveries import DeliveryState
from dicomnode.jobs import JobState

_ALARMS = {
    "disk": "Make room or extend the disk, or set [retention]; the node goes on by itself.",
    "delivery": "Remove the cause, such as a PACS that is away or refuses the results; then retry the deliveries.",
    "confirmation": "See that the PACS reaches the node's port and knows its AE title; the results are in the PACS.",
    "certificate": "Have it renewed, put it where tls.certificate says, and start the node again.",
    "notice": "See that the mail server or the address of the webhook answers; `dicomnode notify` tries it.",
    "pull": "See that the archive answers and lets this node find and fetch; `dicomnode pull` says more.",
    "security": "See to the disk of the audit trail, or to the syslog server; nothing is lost meanwhile.",
}

_JOBS = {
    JobState.SKIPPED: "Requeue it to measure it all the same, or change the rules for series to come.",
    JobState.REFUSED: "Have the series sent again, complete and as it was reconstructed; requeueing alone is no help.",
    JobState.FAILED: "Remove the cause, which the log of the worker tells more of, then requeue it.",
}

_DELIVERIES = {
    DeliveryState.PARKED: "See that the PACS is up and reachable (`dicomnode echo`), then retry.",
    DeliveryState.FAILED: "The PACS refused it for good: have it accept SEG and SR from this node, then retry.",
    DeliveryState.PENDING: "It is tried again by itself.",
}


def on_alarm(kind: str) -> str:
    """What to do about an alarm."""
    return _ALARMS.get(kind, "`dicomnode doctor` says more.")


def on_job(state: str) -> str:
    """What to do about a job in the state; empty: nothing."""
    return _JOBS.get(JobState(state), "")


def on_delivery(state: str) -> str:
    """What to do about a delivery in the state; empty: nothing."""
    return _DELIVERIES.get(DeliveryState(state), "")


_LOOKS = {
    "done": "good", "confirmed": "good", "sent": "good", "fetched": "good",
    "running": "busy", "sending": "busy",
    "failed": "bad", "parked": "bad",
    "refused": "warn",
}  # fmt: skip


def look(state: str) -> str:
    """How a state looks on a page: good, busy, warn, bad or nothing of it. Its name stands there too."""
    return _LOOKS.get(state, "")

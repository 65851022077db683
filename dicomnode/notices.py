"""Notices: what people and other systems are told of, in which words, and for how long it is tried. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dicomnode.lifecycle import Backoff
from dicomnode.topics import Template, Topic


class NoticeState(StrEnum):
    """Where a notice stands."""

    PENDING = "pending"
    TOLD = "told"
    PARKED = "parked"
    MOOT = "moot"


@dataclass(frozen=True)
class Notice:
    """Something to be told to one recipient. `notification` is the name of that one in the settings.

    attempts: how often it was claimed. created_at: when it happened.
    """

    id: int
    notification: str
    topic: Topic
    job_id: int | None
    alarm_id: int | None
    reason: str
    attempts: int
    created_at: datetime


@dataclass(frozen=True)
class Message:
    """A notice in words. key: the same at each attempt, so that who gets it twice can tell. fields: what it says."""

    key: str
    subject: str
    text: str
    fields: Mapping[str, str]


def message_key(*parts: str) -> str:
    """A key of letters and digits that depends on `parts` alone."""
    return f"notice-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"


def compose(key: str, templates: tuple[str, str], fields: Mapping[str, str]) -> Message:
    """A message by the templates of subject and text."""
    subject, text = (Template(template).fill(fields) for template in templates)
    return Message(key, " ".join(subject.split())[:200], text, fields)


@dataclass(frozen=True)
class Persistence:
    """How long a notice is tried."""

    backoff: Backoff
    give_up_s: float

    def next_try(self, notice: Notice, now: datetime) -> datetime | None:
        """When a notice that could not be told is tried again; None: it is parked."""
        if (now - notice.created_at).total_seconds() >= self.give_up_s:
            return None
        return now + timedelta(seconds=self.backoff.wait_s(notice.attempts))

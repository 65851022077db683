"""What a notification can be about, and the words of templates. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from enum import StrEnum


class Topic(StrEnum):
    """What a notification can be about."""

    JOB_FAILED = "job-failed"
    JOB_REFUSED = "job-refused"
    ALARM_RAISED = "alarm-raised"
    ALARM_CLEARED = "alarm-cleared"
    VOLUME_CHANGED = "volume-changed"

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    Topic.JOB_FAILED: "a job failed for good",
    Topic.JOB_REFUSED: "a series cannot be measured",
    Topic.ALARM_RAISED: "an alarm is on",
    Topic.ALARM_CLEARED: "an alarm is over",
    Topic.VOLUME_CHANGED: "a volume changed beyond the expected variability",
}


FIELDS = frozenset({"node", "event", "at", "summary", "reason", "job", "alarm"})
"""What a template may name. at: ISO 8601, UTC. job: its number, or empty. alarm: kind and subject, or empty."""

PATIENT_FIELDS = frozenset(
    {"patient_id", "issuer", "patient_name", "study_instance_uid", "series_instance_uid", "acquired_at"}
    | {"volume_ml", "change_ml", "change_percent", "previous_acquired_at"}
)
"""What only a notification that tells of patients may name; empty where it does not apply."""


class Template(string.Template):
    """Text with `$field` or `${field}`; `$$` is a dollar. Nothing in it is evaluated."""

    flags = re.NOFLAG

    @property
    def names(self) -> frozenset[str]:
        """The fields that it names."""
        return frozenset(self.get_identifiers())

    def fill(self, fields: Mapping[str, str]) -> str:
        """The text, its fields without control characters; one that is not known is empty."""
        clean = {name: _plain(fields.get(name, "")) for name in self.names}
        return self.substitute(clean)


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)

"""What arrived, and when a series is complete. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Patient:
    """Who a series belongs to: PatientID and its issuer together (PS3.3 C.7.1.1). Empty text: it is missing."""

    id: str
    issuer: str


@dataclass(frozen=True)
class StoredInstance:
    """A received instance whose bytes are on disk. All text as received, without padding; missing is empty.

    path: relative to the archive. sha256: of the data set as it came, without preamble and file meta information.
    acquired_at: acquisition (else content, series, study) date and time as `YYYYMMDDHHMMSS`, possibly shorter.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient: Patient
    modality: str
    image_type: str
    image_orientation: str
    acquired_at: str
    path: str
    size_bytes: int
    sha256: str
    calling_ae: str
    received_at: datetime


@dataclass(frozen=True)
class Arrival:
    """A series with instances that no job covers yet."""

    series_instance_uid: str
    study_instance_uid: str
    last_instance_id: int
    last_received_at: datetime


@dataclass(frozen=True)
class CompletenessRule:
    """A series is complete when nothing of it arrived for `quiet_seconds`.

    by_study: it also waits until every series of its study is complete, so that one of them can be preferred.
    """

    quiet_seconds: float
    by_study: bool = False


def is_complete(arrival: Arrival, rule: CompletenessRule, now: datetime) -> bool:
    """Whether the series may become a job at the given time."""
    return now - arrival.last_received_at >= timedelta(seconds=rule.quiet_seconds)


def complete_groups(arrivals: Iterable[Arrival], rule: CompletenessRule, now: datetime) -> list[list[Arrival]]:
    """The series that may become jobs now, together where one decision is made on them: each alone, or by study."""
    groups: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        key = arrival.study_instance_uid if rule.by_study else arrival.series_instance_uid
        groups.setdefault(key, []).append(arrival)
    return [group for group in groups.values() if all(is_complete(arrival, rule, now) for arrival in group)]

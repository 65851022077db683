"""What arrived, and when a series is complete. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

HEADERS = "the headers"
"""Who counts where the instances themselves say how many they are."""

MOST_INSTANCES = 100_000
"""A header that announces more than this announces nothing."""


@dataclass(frozen=True)
class Patient:
    """Who a series belongs to: PatientID and its issuer together (PS3.3 C.7.1.1). Empty text: it is missing."""

    id: str
    issuer: str


@dataclass(frozen=True)
class Labels:
    """What people recognise a series by; in Unicode, missing is empty. It never decides anything, and is not logged.

    patient_name: its component groups parted by `=`, as in VR PN. patient_birth_date: as VR DA.
    """

    patient_name: str = ""
    patient_sex: str = ""
    patient_birth_date: str = ""
    study_description: str = ""
    series_description: str = ""


@dataclass(frozen=True)
class StoredInstance:
    """A received instance whose bytes are on disk. All text as received, without padding; missing is empty.

    path: relative to the archive. sha256: of the data set as it came, without preamble and file meta information.
    acquired_at: acquisition (else content, series, study) date and time as `YYYYMMDDHHMMSS`, possibly shorter.
    expected_instances: how many its headers say that its series has; None: they do not say.
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
    expected_instances: int | None = None
    labels: Labels = Labels()


@dataclass(frozen=True)
class Arrival:
    """A series with instances that no job covers yet.

    last_received_at: also of an instance that was here already, since a sender that tries again begins with those.
    instance_count: of all its instances, of which `removed_count` are no longer on disk.
    expected_instances: how many there should be, as `expected_by` says: `HEADERS` or an archive; None: nobody says.
    is_asked: an archive was asked since the last instance came.
    """

    series_instance_uid: str
    study_instance_uid: str
    last_instance_id: int
    last_received_at: datetime
    instance_count: int
    removed_count: int = 0
    expected_instances: int | None = None
    expected_by: str = ""
    is_asked: bool = False

    @property
    def is_short(self) -> bool:
        """Whether fewer instances are here than somebody says there are."""
        return self.expected_instances is not None and self.instance_count < self.expected_instances


@dataclass(frozen=True)
class CompletenessRule:
    """A series is complete when nothing of it came for `quiet_seconds`, and all is here that is known to exist.

    grace_seconds: this long after its last instance it is taken as it is. by_study: it also waits until every series of
    its study is complete, so that one of them can be preferred. asks_archive: an archive is asked how many there are.
    believes_headers: what the instances say of their number counts.
    """

    quiet_seconds: float
    by_study: bool = False
    grace_seconds: float = 0.0
    asks_archive: bool = False
    believes_headers: bool = True

    def weigh(self, arrival: Arrival) -> Arrival:
        """The arrival without an expectation that does not count."""
        if arrival.expected_by == HEADERS and not self.believes_headers:
            return replace(arrival, expected_instances=None, expected_by="")
        return arrival


def is_complete(arrival: Arrival, rule: CompletenessRule, now: datetime) -> bool:
    """Whether the series may become a job at the given time."""
    waits = arrival.is_short or (rule.asks_archive and not arrival.is_asked)
    return _is_quiet(arrival, rule.quiet_seconds, now) and (not waits or _is_quiet(arrival, rule.grace_seconds, now))


def is_to_be_asked_for(arrival: Arrival, rule: CompletenessRule, now: datetime) -> bool:
    """Whether the archive is to be asked how many instances the series has: once for each time it falls quiet."""
    return rule.asks_archive and not arrival.is_asked and _is_quiet(arrival, rule.quiet_seconds, now)


def complete_groups(arrivals: Iterable[Arrival], rule: CompletenessRule, now: datetime) -> list[list[Arrival]]:
    """The series that may become jobs now, together where one decision is made on them: each alone, or by study."""
    groups: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        key = arrival.study_instance_uid if rule.by_study else arrival.series_instance_uid
        groups.setdefault(key, []).append(arrival)
    return [group for group in groups.values() if all(is_complete(arrival, rule, now) for arrival in group)]


def credible_count(announced: Iterable[int]) -> int | None:
    """The largest number of instances that an instance announces for its series and that can be true, or None."""
    return max((number for number in announced if 1 <= number <= MOST_INSTANCES), default=None)


def _is_quiet(arrival: Arrival, seconds: float, now: datetime) -> bool:
    return now - arrival.last_received_at >= timedelta(seconds=seconds)

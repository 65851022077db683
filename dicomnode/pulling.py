"""What is looked for in an archive, what of it is fetched, when, and how patiently. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from dicomnode.errors import Refused, Unavailable
from dicomnode.lifecycle import Backoff

MOST_STUDIES = 5000
"""That one query may match."""


@dataclass(frozen=True)
class Query:
    """What an archive is asked for; an empty text and None match everything.

    since, until: of Study Date, both included. patient_id: may hold the wildcards of PS3.4 C.2.2.2.4.
    """

    patient_id: str = ""
    accession_number: str = ""
    study_instance_uid: str = ""
    since: date | None = None
    until: date | None = None
    modality: str = ""

    @property
    def study_date(self) -> str:
        """Study Date as a range (PS3.4 C.2.2.2.5); empty: any."""
        if self.since is None and self.until is None:
            return ""
        first, last = (f"{day:%Y%m%d}" if day else "" for day in (self.since, self.until))
        return f"{first}-{last}"


@dataclass(frozen=True)
class FoundSeries:
    """A series as an archive describes it. instances: how many it has; None: it does not say."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    description: str
    number: str
    instances: int | None


@dataclass(frozen=True)
class FoundStudy:
    """A study as an archive describes it, with the series of it that it was asked for."""

    study_instance_uid: str
    patient_id: str
    accession_number: str
    date: str
    description: str
    series: tuple[FoundSeries, ...]


@dataclass(frozen=True)
class Filters:
    """Which of the series found are wanted. Patterns are found anywhere, in capitals or not; None: any text."""

    modality: str = ""
    study_description: str | None = None
    series_description: str | None = None
    minimum_instances: int = 1

    def choose(self, study: FoundStudy) -> list[FoundSeries]:
        """The series of the study that are wanted."""
        if not _has(self.study_description, study.description):
            return []
        return [series for series in study.series if self._fits(series)]

    def _fits(self, series: FoundSeries) -> bool:
        enough = series.instances is None or series.instances >= self.minimum_instances
        return (
            enough
            and (not self.modality or series.modality == self.modality)
            and _has(self.series_description, series.description)
        )


def _has(pattern: str | None, text: str) -> bool:
    return pattern is None or re.search(pattern, text, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Retrieved:
    """How a retrieval ended: the final status (PS3.4 C.4.2.1.5, C.4.3.1.4) and its numbers of sub-operations.

    first_failure: what the first instance that could not be kept failed with, where that is known.
    """

    status: int
    completed: int
    failed: int = 0
    warnings: int = 0
    first_failure: str = ""


class Tally:
    """Counts what became of the instances that came over our own connection, by the C-STORE status of each."""

    def __init__(self) -> None:
        self._completed = self.failed = self._warnings = 0
        self._first_failure = ""

    def add(self, status: int) -> None:
        """One more; success and warnings are kept, everything else failed (PS3.4 Table B.2-1)."""
        if status == 0x0000:
            self._completed += 1
        elif status >> 12 == 0xB:
            self._warnings += 1
        else:
            self.failed += 1
            self._first_failure = self._first_failure or f"0x{status:04X}"

    def result(self, status: int | None = None) -> Retrieved:
        """What was counted. status: the final one of the archive; None: it gives none."""
        final = status if status is not None else (0xB000 if self.failed else 0x0000)
        return Retrieved(final, self._completed, self.failed, self._warnings, self._first_failure)


def judge(result: Retrieved, destination: str = "") -> str:
    """What a retrieval brought, in words. Raises Refused or Unavailable where not everything came.

    destination: AE title that a C-MOVE named.
    """
    code = f"0x{result.status:04X}"
    if result.status == 0xA801:
        raise Refused(f"{code}: the archive does not know the move destination {destination}: enter this node in it")
    if result.status in (0xA900, 0x0122, 0x0124, 0xA802):
        raise Refused(f"{code}: the archive refuses to send it")
    if result.status in (0xA701, 0xA702):
        raise Unavailable(f"{code}: the archive is out of resources")
    if result.status >> 12 == 0xC and destination:
        hint = f"some answer so where they do not know the move destination {destination}"
        raise Unavailable(f"{code}: the archive cannot process it; {hint}")
    if result.failed or result.status not in (0x0000, 0xB000):
        why = f", the first with {result.first_failure}" if result.first_failure else ""
        raise Unavailable(f"{code}: {result.completed} instances came, {result.failed} failed{why}")
    noted = f", {result.warnings} with a warning" if result.warnings else ""
    return f"{result.completed} instances came{noted}"


class PullState(StrEnum):
    """Where a series stands that a rule found."""

    WANTED = "wanted"
    FETCHED = "fetched"
    FAILED = "failed"


class PullEvent(StrEnum):
    """What moves it."""

    FETCH = "fetch"
    POSTPONE = "postpone"
    GIVE_UP = "give-up"
    GROW = "grow"
    RETRY = "retry"


MOVES: dict[tuple[PullState, PullEvent], PullState] = {
    (PullState.WANTED, PullEvent.FETCH): PullState.FETCHED,
    (PullState.WANTED, PullEvent.POSTPONE): PullState.WANTED,
    (PullState.WANTED, PullEvent.GIVE_UP): PullState.FAILED,
    (PullState.FETCHED, PullEvent.GROW): PullState.WANTED,
    (PullState.FAILED, PullEvent.RETRY): PullState.WANTED,
}


@dataclass(frozen=True)
class PullPatience:
    """How long a series is tried, counted from when it was found, or asked for again."""

    backoff: Backoff
    give_up_s: float

    def after_failure(self, since: datetime, now: datetime) -> PullEvent:
        """What becomes of a series that could not be fetched."""
        return PullEvent.GIVE_UP if (now - since).total_seconds() >= self.give_up_s else PullEvent.POSTPONE


@dataclass(frozen=True)
class Rhythm:
    """When a rule looks. hours: of the day, in which it may; empty: in all."""

    every: timedelta
    hours: frozenset[int]

    def is_open(self, local: datetime) -> bool:
        """Whether something may be fetched. local: the time in the zone that `hours` are of."""
        return not self.hours or local.hour in self.hours

    def is_due(self, last: datetime | None, local: datetime) -> bool:
        """Whether to look. last: when it last began to; None: never."""
        return self.is_open(local) and (last is None or local - last >= self.every)


def is_whole_here(here: int, series: FoundSeries) -> bool:
    """Whether there is nothing to fetch. here: how many instances of the series came before, removed ones too."""
    return here >= (1 if series.instances is None else max(series.instances, 1))


Keep = Callable[[bytes], int]
"""Takes a DICOM file in; returns the status of a C-STORE that says what became of it (PS3.4 Table B.2-1)."""

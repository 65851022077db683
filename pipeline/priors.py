"""What is known of the patient from before: earlier volumes, and how far this one may be compared with them. Pure data.

Whoever keeps the history fills it in; the report and the page say it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

MOST_SHOWN = 12
"""So many earlier volumes are told: the first, and the last ones."""


@dataclass(frozen=True)
class Report:
    """A report that was made before, as others refer to it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


class Verdict(StrEnum):
    """What a change from an earlier volume may mean."""

    WITHIN = "within"
    INDETERMINATE = "indeterminate"
    BEYOND = "beyond"
    NOT_COMPARABLE = "not-comparable"


@dataclass(frozen=True)
class Change:
    """From an earlier volume to this one.

    percent: of the earlier one. days: between the acquisitions. meaning: the verdict in words; where the two cannot be
    compared, why not. differences: what was different at the acquisition, a few words each.
    """

    ml: float
    percent: float
    days: float
    verdict: Verdict
    meaning: str
    differences: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """One clause for people."""
        other = f" ({'; '.join(self.differences)})" if self.differences else ""
        return f"{self.ml:+.1f} mL ({self.percent:+.1f} %) in {self.days:.0f} days, {self.meaning}{other}"


@dataclass(frozen=True)
class Prior:
    """A volume that was acquired before this one, and counts.

    acquired_at: `YYYYMMDD`, with or without a time behind it. model: name and version. change: to this measurement;
    None where this one has no volume. report: where the volume stands, as far as that is known. is_joined: the prior
    before it can be compared with it.
    """

    acquired_at: str
    volume_ml: float
    is_lower_bound: bool
    model: str
    change: Change | None
    report: Report | None
    is_joined: bool = False

    @property
    def date(self) -> str:
        """The day of the acquisition, ISO 8601."""
        return day(self.acquired_at)

    @property
    def words(self) -> str:
        """The volume for people."""
        return f"{'at least ' if self.is_lower_bound else ''}{self.volume_ml:.1f} mL"


@dataclass(frozen=True)
class Priors:
    """The earlier volumes, oldest first. bands: what the verdicts go by, with its source. acquired_at: of this series,
    empty where it is not known.

    within_percent: up to which change since the first one is within measurement error; None without any.
    edition: how many reports of this revision of the series there are with this one, since a rerun may know other
    priors; predecessor: the one before, whose place this one takes.
    """

    volumes: tuple[Prior, ...] = ()
    bands: str = ""
    acquired_at: str = ""
    within_percent: float | None = None
    edition: int = 1
    predecessor: Report | None = None

    @property
    def shown(self) -> tuple[Prior, ...]:
        """Those that are told, oldest first."""
        return self.volumes if len(self.volumes) <= MOST_SHOWN else (self.volumes[0], *self.volumes[1 - MOST_SHOWN :])

    @property
    def digest(self) -> str:
        """Of all that a report says of them: reports that say other things are other objects. Empty without any."""
        return hashlib.sha256(repr((self.volumes, self.bands)).encode()).hexdigest() if self.volumes else ""

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of it for people, a sentence each."""
        if not self.volumes:
            return ()
        left_out = len(self.volumes) - len(self.shown)
        rest = f", of which {left_out} are not told" if left_out else ""
        counted = f"Earlier volumes: {len(self.volumes)}{rest}."
        return (counted, *(_tell(prior) for prior in self.shown), self.bands)


def day(acquired_at: str) -> str:
    """The day of an acquisition, ISO 8601; empty where it is not known."""
    return f"{acquired_at[:4]}-{acquired_at[4:6]}-{acquired_at[6:8]}" if acquired_at else ""


def _tell(prior: Prior) -> str:
    told = f"{prior.date}: {prior.words} ({prior.model})"
    return f"{told}; change since then {prior.change.words}." if prior.change else f"{told}."


NONE = Priors()

"""A patient's volumes over time: which of them count, how they changed, and what a change may mean. Pure.

The figures and their sources are those of the literature that docs/history.md lists. No range is called normal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from dicomnode.sections import HistorySettings

_T = TypeVar("_T")

LOWER_BOUND = "touches-border"
"""The flag of a volume that is a lower bound: the organ reaches the edge of the images."""

BANDS_SOURCE = (
    "2.77 x 8.3 % = 23 %, from the coefficient of variation between four sites and nine MRI scanners, of which the "
    "largest difference was 17 % (Diabetes 2020;69 Suppl 1283-P); automated CT volumes of organs deviate by 6.5 % "
    "between contrast phases (doi:10.1007/s10278-024-01265-w). No published scan-rescan repeatability of automated CT "
    "pancreas volume is known."
)
"""Where the change bands come from."""


class Standing(StrEnum):
    """What a point is worth in the history."""

    COUNTS = "counts"
    SUPERSEDED = "superseded"
    INVALID = "invalid"
    NOT_FOUND = "not-found"
    UNDATED = "undated"

    @property
    def meaning(self) -> str:
        """One sentence for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Standing.COUNTS: "The volume counts.",
    Standing.SUPERSEDED: "A later revision of the series took its place.",
    Standing.INVALID: "A person marked the result as invalid.",
    Standing.NOT_FOUND: "The pancreas was not found, which is no volume of 0 mL.",
    Standing.UNDATED: "The images do not say when they were acquired, so that the volume has no place in time.",
}


class Band(StrEnum):
    """What a change of a volume may mean."""

    WITHIN = "within"
    INDETERMINATE = "indeterminate"
    BEYOND = "beyond"

    @property
    def meaning(self) -> str:
        """A few words for people."""
        return _BANDS[self]


_BANDS = {
    Band.WITHIN: "within measurement error",
    Band.INDETERMINATE: "indeterminate: look at phase, thickness and outline",
    Band.BEYOND: "exceeds the expected variability",
}


@dataclass(frozen=True)
class Conditions:
    """How a series was acquired, as its headers say; empty or None where they do not."""

    manufacturer: str = ""
    scanner: str = ""
    kernel: str = ""
    phase: str = ""
    thickness_mm: float | None = None

    def differences(self, earlier: Conditions) -> tuple[str, ...]:
        """Where an earlier series was acquired otherwise, a few words each; what either does not say is left out."""
        pairs = ((f.name, getattr(self, f.name), getattr(earlier, f.name)) for f in fields(self))
        return tuple(
            f"{_CALLED[name]} {_plain(now)}, before {_plain(before)}"
            for name, now, before in pairs
            if now not in ("", None, "unknown") and before not in ("", None, "unknown") and now != before
        )


_CALLED = {
    "manufacturer": "manufacturer",
    "scanner": "scanner",
    "kernel": "kernel",
    "phase": "phase",
    "thickness_mm": "slice thickness in mm",
}


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def moment_of(acquired_at: str) -> datetime | None:
    """`YYYYMMDDHHMMSS` or a shorter form as a time without zone, which scanners do not tell; None: it is no date."""
    for length, form in ((14, "%Y%m%d%H%M%S"), (12, "%Y%m%d%H%M"), (8, "%Y%m%d")):
        if len(acquired_at) >= length and acquired_at.isdigit():
            try:
                return datetime.strptime(acquired_at[:length], form)  # noqa: DTZ007
            except ValueError:
                continue
    return None


@dataclass(frozen=True)
class VolumePoint:
    """One measurement of a series.

    job_id: None where `source` names the archive whose report says so. acquired_at: `YYYYMMDDHHMMSS`, possibly shorter
    or empty. volume_ml: None where nothing was found. confidence: None where the report does not say. flags: names of
    the quality checks that spoke. repeatability_percent: of the model. superseded: a later revision took its place,
    whether that one could be measured or not. invalid: why a person marked it so, with who and when; empty: valid.
    """

    job_id: int | None
    patient_id: str
    issuer_of_patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    revision: int
    acquired_at: str
    volume_ml: float | None
    confidence: float | None
    flags: tuple[str, ...]
    model_name: str
    model_version: str
    model_sha256: str
    repeatability_percent: float | None
    conditions: Conditions
    measured_at: datetime
    superseded: bool = False
    invalid: str = ""
    source: str = ""

    @property
    def is_lower_bound(self) -> bool:
        """Whether the true volume is this or more."""
        return LOWER_BOUND in self.flags

    @property
    def moment(self) -> datetime | None:
        """When the series was acquired, by the scanner's clock; None where the images do not say."""
        return moment_of(self.acquired_at)

    @property
    def standing(self) -> Standing:
        """What it is worth."""
        if self.invalid:
            return Standing.INVALID
        if self.superseded:
            return Standing.SUPERSEDED
        if self.volume_ml is None:
            return Standing.NOT_FOUND
        return Standing.UNDATED if self.moment is None else Standing.COUNTS


@dataclass(frozen=True)
class Change:
    """From one volume that counts to a later one.

    percent: of the earlier volume. days: between the acquisitions. band: None where the two cannot be compared.
    reasons: why they cannot be; empty: they can. differences: what was different, to be weighed by a person.
    """

    since: VolumePoint
    ml: float
    percent: float
    days: float
    band: Band | None
    reasons: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def is_comparable(self) -> bool:
        """Whether the change says anything of the patient."""
        return not self.reasons


@dataclass(frozen=True)
class Entry:
    """A point with its changes since the previous and since the first point that count; None where there is none."""

    point: VolumePoint
    standing: Standing
    previous: Change | None = None
    first: Change | None = None


@dataclass(frozen=True)
class Reference:
    """Volumes of a published cohort: mean and SD, never a limit between normal and abnormal."""

    cohort: str
    mean_ml: float
    sd_ml: float
    source: str


REFERENCES = (
    Reference("1,886 adults of 20 to 60 years, CT", 72.4, 25.8, "Saisho 2007, doi:10.1002/ca.20543"),
    Reference("204 adults of 20 to 80 years, trauma CT", 77.9, 21.7, "doi:10.1007/s00261-018-1793-8"),
    Reference("1,003 Korean adults, CT, falling with age", 62.6, 19.1, "Healthc Inform Res 2020;26:321"),
)
"""Published pancreas volumes on CT."""


def timeline(points: Iterable[VolumePoint], bands: HistorySettings) -> list[Entry]:
    """Every point in order of acquisition, undated ones last; changes are between points that count."""
    entries: list[Entry] = []
    counted: list[VolumePoint] = []
    for point in sorted(points, key=_order):
        if point.standing is not Standing.COUNTS:
            entries.append(Entry(point, point.standing))
            continue
        previous = change(counted[-1], point, bands) if counted else None
        first = change(counted[0], point, bands) if counted else None
        entries.append(Entry(point, point.standing, previous, first))
        counted.append(point)
    return entries


def _order(point: VolumePoint) -> tuple[bool, str, str, int]:
    return point.moment is None, point.acquired_at, point.series_instance_uid, point.revision


def change(since: VolumePoint, point: VolumePoint, bands: HistorySettings) -> Change:
    """What happened from one point that counts to a later one."""
    earlier, later = _known(since.volume_ml), _known(point.volume_ml)
    percent = 100 * (later - earlier) / earlier
    reasons = tuple(_reasons(since, point))
    band = None if reasons else _band(abs(percent), *limits(since, bands))
    days = (_known(point.moment) - _known(since.moment)).total_seconds() / 86400
    differences = point.conditions.differences(since.conditions)
    return Change(since, later - earlier, percent, days, band, reasons, differences)


def _known(value: _T | None) -> _T:
    if value is None:
        raise ValueError("only points that count can be compared")
    return value


def _reasons(since: VolumePoint, point: VolumePoint) -> Iterator[str]:
    if (since.model_name, since.model_version) != (point.model_name, point.model_version):
        yield f"measured by {since.model_name} {since.model_version} and by {point.model_name} {point.model_version}"
    elif since.model_sha256 != point.model_sha256:
        yield f"the weights of {point.model_name} {point.model_version} differ"
    for one, called in ((since, "earlier"), (point, "later")):
        if one.is_lower_bound:
            yield f"the {called} volume is a lower bound"


def limits(since: VolumePoint, bands: HistorySettings) -> tuple[float, float]:
    """Up to which change since a point, in percent, it is within measurement error, and indeterminate.

    The model's own repeatability widens the bands where it is worse than they are.
    """
    within = max(bands.within_percent, since.repeatability_percent or 0)
    return within, max(bands.beyond_percent, within)


def _band(percent: float, within: float, beyond: float) -> Band:
    if percent < within:
        return Band.WITHIN
    return Band.INDETERMINATE if percent <= beyond else Band.BEYOND


def tabulate(entry: Entry) -> dict[str, Any]:
    """An entry as one flat row of a table, for CSV, Parquet and JSON: a value of each column, None where there is none.

    flags and reasons: joined by `; `. Columns that end in `_ml`, `_percent`, `_mm` and `_days` are in these units.
    """
    point, conditions = entry.point, entry.point.conditions
    row: dict[str, Any] = {
        "patient_id": point.patient_id,
        "issuer_of_patient_id": point.issuer_of_patient_id,
        "acquired_at": point.acquired_at,
        "volume_ml": point.volume_ml,
        "is_lower_bound": point.is_lower_bound,
        "standing": str(entry.standing),
        "invalid_because": point.invalid,
        "confidence": point.confidence,
        "flags": "; ".join(point.flags),
        "model_name": point.model_name,
        "model_version": point.model_version,
        "model_sha256": point.model_sha256,
        "repeatability_percent": point.repeatability_percent,
        **{field.name: getattr(conditions, field.name) for field in fields(conditions)},
    }
    for name, since in (("previous", entry.previous), ("first", entry.first)):
        row |= {f"{key}_since_{name}": value for key, value in _columns(since).items()}
    identity = ("study_instance_uid", "series_instance_uid", "revision", "job_id", "source")
    return row | {name: getattr(point, name) for name in identity} | {"measured_at": point.measured_at.isoformat()}


def _columns(since: Change | None) -> dict[str, Any]:
    names = ("change_ml", "change_percent", "days", "band", "is_comparable", "not_comparable_because", "differences")
    if since is None:
        return dict.fromkeys(names)
    figures = (round(since.ml, 3), round(since.percent, 2), round(since.days, 3))
    band = None if since.band is None else str(since.band)
    words = ("; ".join(since.reasons), "; ".join(since.differences))
    return dict(zip(names, (*figures, band, since.is_comparable, *words), strict=True))

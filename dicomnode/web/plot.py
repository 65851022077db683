"""A patient's volumes over time as a drawing: where every mark, line, tick and band lies. A template draws it as SVG.

Time runs to the right on a true scale, volume upwards from 0. A line joins two volumes only where they can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from dicomnode.history import REFERENCES, Entry, Reference, Standing, VolumePoint, limits
from dicomnode.sections import HistorySettings

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 62, 820, 34, 380
"""Of the frame that holds the marks; the cohorts stand to the right of it."""

_MARGIN = 40  # between the frame and the first and last mark
_COHORT_STEP = 40
_LONE_SPAN = timedelta(days=60)  # shown around a single moment
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 1200)
_MOST_TICKS = 8


@dataclass(frozen=True)
class Mark:
    """A volume. number: of its entry, from 0. model: of its model among `Plot.models`."""

    number: int
    entry: Entry
    model: int
    x: float
    y: float


@dataclass(frozen=True)
class Tick:
    """A step of an axis. at: x or y."""

    at: float
    text: str


@dataclass(frozen=True)
class Zone:
    """Where later volumes lie within a limit of change, from `x` on."""

    x: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Whisker:
    """Mean and SD of a published cohort. key: a letter to find it in the list by."""

    key: str
    reference: Reference
    x: float
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Plot:
    """All that is drawn, in units of the picture. models: name and version of each, in order of appearance.

    baseline: the first volume that counts, which the zones lie around; None where none counts, or it is a lower bound.
    """

    models: tuple[str, ...]
    marks: tuple[Mark, ...]
    lines: tuple[tuple[Mark, Mark], ...]
    times: tuple[Tick, ...]
    volumes: tuple[Tick, ...]
    baseline: VolumePoint | None
    within: Zone | None
    indeterminate: Zone | None
    whiskers: tuple[Whisker, ...]


def lay_out(entries: Sequence[Entry], bands: HistorySettings) -> Plot | None:
    """Lay the volumes out that have a place in time; None where none has.

    entries: of one patient, as `history.timeline` gives them.
    """
    shown = [(number, entry) for number, entry in enumerate(entries) if _is_shown(entry)]
    if not shown:
        return None
    moments = [entry.point.moment for _, entry in shown if entry.point.moment]
    first, last = _widen(min(moments), max(moments))
    most = max(entry.point.volume_ml or 0.0 for _, entry in shown)
    step_ml = _volume_step(max(most, *(one.mean_ml + one.sd_ml for one in REFERENCES)) * 1.05)
    scale = _Scale(first, last, step_ml)
    models = tuple(dict.fromkeys(model_words(entry.point) for _, entry in shown))
    marks = tuple(
        Mark(
            number, entry, models.index(model_words(entry.point)), scale.x(entry.point), scale.y(entry.point.volume_ml)
        )
        for number, entry in shown
    )
    counting = [mark for mark in marks if mark.entry.standing is Standing.COUNTS]
    baseline = counting[0] if counting and not counting[0].entry.point.is_lower_bound else None
    within, indeterminate = _zones(baseline, scale, bands) if baseline else (None, None)
    return Plot(
        models=models,
        marks=marks,
        lines=tuple((one, other) for one, other in pairwise(counting) if _is_joined(other.entry)),
        times=tuple(Tick(scale.at(moment), text) for moment, text in _time_ticks(first, last)),
        volumes=tuple(Tick(scale.y(step * step_ml), f"{step * step_ml:g}") for step in range(scale.steps + 1)),
        baseline=baseline.entry.point if baseline else None,
        within=within,
        indeterminate=indeterminate,
        whiskers=tuple(_whisker(index, reference, scale) for index, reference in enumerate(REFERENCES)),
    )


def model_words(point: VolumePoint) -> str:
    """Name and version of the model."""
    return f"{point.model_name} {point.model_version}".strip()


@dataclass(frozen=True)
class _Scale:
    first: datetime
    last: datetime
    step_ml: float
    steps: int = 5

    def at(self, moment: datetime) -> float:
        share = (moment - self.first) / (self.last - self.first)
        return LEFT + _MARGIN + share * (RIGHT - LEFT - 2 * _MARGIN)

    def x(self, point: VolumePoint) -> float:
        return self.at(point.moment or self.first)

    def y(self, volume_ml: float | None) -> float:
        share = (volume_ml or 0.0) / (self.steps * self.step_ml)
        return BOTTOM - min(share, 1.0) * (BOTTOM - TOP)


def _is_shown(entry: Entry) -> bool:
    return entry.point.moment is not None and entry.point.volume_ml is not None


def _is_joined(entry: Entry) -> bool:
    return entry.previous is not None and entry.previous.is_comparable


def _widen(first: datetime, last: datetime) -> tuple[datetime, datetime]:
    short = _LONE_SPAN - (last - first)
    return (first - short / 2, last + short / 2) if short > timedelta(0) else (first, last)


def _volume_step(most_ml: float) -> float:
    """A fifth of the axis, mL: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(most_ml / 5))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if 5 * factor * power >= most_ml)


def _time_ticks(first: datetime, last: datetime) -> Iterator[tuple[datetime, str]]:
    """Starts of years or months between two moments, or of weeks where these are too long."""
    months = 12 * (last.year - first.year) + last.month - first.month
    step = next(step for step in _MONTHS if months / step < _MOST_TICKS)
    if months < 3:
        day = first.replace(hour=0, minute=0, second=0) + timedelta(days=1)
        while day <= last:
            yield day, f"{day:%Y-%m-%d}"
            day += timedelta(days=14)
        return
    for month in range(first.year * 12 // step * step, last.year * 12 + last.month, step):
        tick = datetime(month // 12, month % 12 + 1, 1)  # noqa: DTZ001 - scanners tell no zone
        if first <= tick <= last:
            yield tick, f"{tick:%Y}" if step >= 12 else f"{tick:%Y-%m}"


def _zones(baseline: Mark, scale: _Scale, bands: HistorySettings) -> tuple[Zone, Zone]:
    point = baseline.entry.point
    volume_ml = point.volume_ml or 0.0
    within, indeterminate = (
        Zone(baseline.x, scale.y(volume_ml * (1 + share)), scale.y(max(0.0, volume_ml * (1 - share))))
        for share in (percent / 100 for percent in limits(point, bands))
    )
    return within, indeterminate


def _whisker(index: int, reference: Reference, scale: _Scale) -> Whisker:
    levels = (reference.mean_ml - reference.sd_ml, reference.mean_ml, reference.mean_ml + reference.sd_ml)
    low, mean, high = (scale.y(level) for level in levels)
    return Whisker("ABCDEFGH"[index], reference, RIGHT + _COHORT_STEP * (index + 0.75), low, mean, high)

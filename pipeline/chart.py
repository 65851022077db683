"""A patient's volumes over time as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

_YEARS = range(1900, 2200)  # a date beyond is a mistake of somebody, and an axis that holds it shows nothing else
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart by people with colour vision deficiency (Okabe and Ito 2008); markers differ too."""


@dataclass(frozen=True)
class ChartPoint:
    """One volume. at: of the acquisition. counts: False where it was superseded or marked as invalid.

    is_joined: whether it can be compared with the point before it that counts.
    """

    at: datetime
    volume_ml: float
    model: str
    is_lower_bound: bool = False
    counts: bool = True
    is_joined: bool = False


def draw_volumes(axes: Axes, points: Sequence[ChartPoint], *, band_percent: float | None = None) -> None:
    """Plot volumes in mL over a true time axis that begins at 0 mL.

    points: in order of acquisition. Each model has a colour and a marker; a line joins volumes that can be compared. A
    lower bound carries an arrow up, what does not count is hollow.
    band_percent: shaded around the first point that counts: changes of its model that are within measurement error.
    """
    points = [point for point in points if point.at.year in _YEARS]
    _draw_lines(axes, [point for point in points if point.counts])
    models = list(dict.fromkeys(point.model for point in points))
    for index, model in enumerate(models):
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 7, "linestyle": "none"}
        axes.plot([], [], **style, label=model)
        for point in points:
            if point.model == model:
                axes.plot(date2num(point.at), point.volume_ml, **style, fillstyle="full" if point.counts else "none")
                if point.is_lower_bound:
                    _draw_arrow(axes, point, colour)
    _draw_band(axes, points, band_percent)
    axes.set_ylim(0, max([point.volume_ml for point in points], default=100.0) * 1.25)
    axes.set_ylabel("volume / mL")
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.grid(alpha=0.25)
    if models:
        axes.legend(fontsize="small", loc="lower right")


def _draw_lines(axes: Axes, counting: Sequence[ChartPoint]) -> None:
    for earlier, later in pairwise(counting):
        if later.is_joined:
            days = [float(date2num(point.at)) for point in (earlier, later)]
            axes.plot(days, [earlier.volume_ml, later.volume_ml], color="dimgrey", linewidth=1.2, zorder=1)


def _draw_arrow(axes: Axes, point: ChartPoint, colour: str) -> None:
    day, head = date2num(point.at), {"arrowstyle": "->", "color": colour}
    axes.annotate("", (day, point.volume_ml * 1.16), (day, point.volume_ml), arrowprops=head)


def _draw_band(axes: Axes, points: Sequence[ChartPoint], band_percent: float | None) -> None:
    first = next((point for point in sorted(points, key=lambda point: point.at) if point.counts), None)
    if first is None or band_percent is None or first.is_lower_bound:
        return
    low, high = (first.volume_ml * (1 + sign * band_percent / 100) for sign in (-1, 1))
    axes.axhspan(low, high, color="grey", alpha=0.15, linewidth=0)
    words = f" within {band_percent:g} % of the first"
    axes.text(0.01, high, words, transform=axes.get_yaxis_transform(), fontsize="x-small", va="bottom", color="dimgrey")

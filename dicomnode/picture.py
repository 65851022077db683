"""A patient's history as a picture. No name and no identifier is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dicomnode.history import Entry, Standing, limits
from dicomnode.sections import HistorySettings
from pipeline.chart import ChartPoint, draw_volumes


def draw_history(entries: Sequence[Entry], bands: HistorySettings, target: Path | IO[bytes]) -> None:
    """Write a PNG of the volumes over time; what was not found or has no date is not in it."""
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    first = next((entry.point for entry in entries if entry.standing is Standing.COUNTS), None)
    draw_volumes(axes, to_chart(entries), band_percent=limits(first, bands)[0] if first else None)
    axes.set_title("Pancreas volume (AI, unverified, not for diagnosis)", fontsize=11)
    canvas.print_png(target)


def to_chart(entries: Sequence[Entry]) -> list[ChartPoint]:
    """The entries that have a volume and a date."""
    return [
        ChartPoint(
            moment,
            point.volume_ml,
            f"{point.model_name} {point.model_version}",
            point.is_lower_bound,
            entry.standing is Standing.COUNTS,
            entry.previous is not None and entry.previous.is_comparable,
        )
        for entry in entries
        if (moment := (point := entry.point).moment) is not None and point.volume_ml is not None
    ]

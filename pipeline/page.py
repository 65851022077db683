"""The finding on one page for people: key images, earlier volumes, method and limits. No name and no identifier."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.text import Text

from models.card import Card
from pipeline import VERSION, provenance
from pipeline.chart import ChartPoint, draw_volumes
from pipeline.measure import Flag, Measurement
from pipeline.preview import draw_slices
from pipeline.priors import Prior, Priors, Verdict, day
from pipeline.volume import Segmentation, Volume

_A4_INCHES = (8.27, 11.69)
_STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,  # embedded as TrueType, so that the text can be selected and searched
    "font.family": "DejaVu Sans",
    "savefig.dpi": 150,
    "text.parse_math": False,  # a dollar is a dollar
}

_ROWS = 7  # of the table
_METHOD = (
    "Method: the outline is drawn by the model named above, without a person; the volume is the number of voxels "
    "inside times the volume of one. Limits: made by software, verified by nobody, not a medical device, not for "
    "diagnosis. Look at the outline before you use the number. Volumes of different models are not compared. No volume "
    "is called normal or abnormal."
)


@dataclass(frozen=True)
class Content:
    """What the page shows. priors: the earlier volumes; extra: further sentences, such as what was assumed."""

    volume: Volume
    segmentation: Segmentation
    measurement: Measurement
    card: Card
    priors: Priors
    extra: tuple[str, ...] = ()


def draw_page(content: Content) -> bytes:
    """The page as a PDF of A4; the same content gives the same bytes."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_A4_INCHES, facecolor="white")
        canvas = FigureCanvasPdf(figure)
        bands = figure.subfigures(5, 1, height_ratios=(0.9, 4.3, 2.9, 2.0, 2.6), squeeze=False)
        top, images, chart, table, text = bands.ravel()
        _draw_head(top.subplots(gridspec_kw=_edges(0.04, 0.0, 0.96, 1.0)), content)
        images.set_facecolor("black")
        panels = images.subplots(2, 3, gridspec_kw=_edges(0.01, 0.01, 0.99, 0.99) | {"wspace": 0.02, "hspace": 0.02})
        draw_slices(list(panels.ravel()), content.volume, content.segmentation)
        _draw_chart(chart.subplots(gridspec_kw=_edges(0.09, 0.14, 0.96, 0.94)), content)
        _draw_table(table.subplots(gridspec_kw=_edges(0.04, 0.0, 0.96, 1.0)), content)
        _draw_text(text.subplots(gridspec_kw=_edges(0.04, 0.0, 0.96, 1.0)), content)
        for one in figure.findobj(Text):
            one.set_fontfeatures(("-liga",))  # of which readers of the text would make other letters
        buffer = BytesIO()
        # No date of creation, and no version of the library: the same bytes tomorrow.
        empty = dict.fromkeys(("CreationDate", "ModDate", "Producer"))
        canvas.print_pdf(buffer, metadata={**empty, "Creator": provenance.PRODUCT, "Title": "Pancreas volume"})
    return buffer.getvalue()


def _edges(left: float, bottom: float, right: float, top: float) -> dict[str, float]:
    return {"left": left, "bottom": bottom, "right": right, "top": top}


def _draw_head(axes: Axes, content: Content) -> None:
    axes.set_axis_off()
    words = provenance.volume_words(content.measurement)
    axes.text(0.0, 0.75, f"Pancreas: {words}", fontsize=17, weight="bold", va="center", transform=axes.transAxes)
    axes.text(
        1.0, 0.75, "AI, unverified", fontsize=12, color="#b00000", weight="bold", va="center", ha="right",
        transform=axes.transAxes,
    )  # fmt: skip
    acquired = day(content.priors.acquired_at)
    scan = f"CT acquired {acquired} · " if acquired else ""
    made = f"{scan}{_model(content.card)} · {provenance.PRODUCT} {VERSION}"
    axes.text(0.0, 0.15, made, fontsize=8.5, color="#404040", va="center", transform=axes.transAxes)


def _model(card: Card) -> str:
    return provenance.plain(f"{card.name} {card.version}")


def _draw_chart(axes: Axes, content: Content) -> None:
    known = content.priors.volumes
    points = [
        ChartPoint(
            _moment(one.acquired_at),
            one.volume_ml,
            provenance.plain(one.model),
            one.is_lower_bound,
            is_joined=one.is_joined,
        )
        for one in known
    ]
    measurement = content.measurement
    if content.priors.acquired_at and measurement.voxel_count:
        bound = Flag.TOUCHES_BORDER in measurement.flags
        is_joined = bool(known and known[-1].change and known[-1].change.verdict is not Verdict.NOT_COMPARABLE)
        at, volume_ml = _moment(content.priors.acquired_at), measurement.volume_ml
        points.append(ChartPoint(at, volume_ml, _model(content.card), bound, is_joined=is_joined))
    if not content.priors.volumes:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No earlier volume is known.", ha="center", color="#404040", transform=axes.transAxes)
        return
    draw_volumes(axes, points, band_percent=content.priors.within_percent)
    axes.tick_params(labelsize=8)


def _moment(acquired_at: str) -> datetime:
    """The day of an acquisition that has a place in time."""
    return datetime.strptime(acquired_at[:8], "%Y%m%d")  # noqa: DTZ007 - scanners tell no zone


def _draw_table(axes: Axes, content: Content) -> None:
    axes.set_axis_off()
    shown = content.priors.shown[-_ROWS:]
    if not shown:
        return
    head = ["acquired", "volume", "model", "change since then", "which is"]
    widths = [0.1, 0.13, 0.17, 0.19, 0.41]
    rows = [_row(one) for one in reversed(shown)]
    table = axes.table(rows, colLabels=head, colWidths=widths, loc="upper left", cellLoc="left", colLoc="left")
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    for (row, _), cell in table.get_celld().items():
        cell.set_edgecolor("#c0c0c0")
        cell.set_height(0.118)
        if row == 0:
            cell.set_text_props(weight="bold")


def _row(prior: Prior) -> Sequence[str]:
    change = prior.change
    figures = "" if change is None else f"{change.ml:+.1f} mL ({change.percent:+.1f} %)"
    meaning = "" if change is None else textwrap.shorten(change.meaning, 52, placeholder=" ...")
    return [prior.date, prior.words, provenance.plain(prior.model, 24), figures, provenance.plain(meaning, 70)]


def _draw_text(axes: Axes, content: Content) -> None:
    axes.set_axis_off()
    flags = [flag.meaning.replace("structure", "pancreas") for flag in content.measurement.flags]
    sentences = [*flags, *content.extra, content.priors.bands, _METHOD, content.card.statement]
    paragraphs = [textwrap.fill(provenance.plain(one, 1024), 165) for one in sentences if one]
    size = 6.5 if sum(one.count("\n") + 1 for one in paragraphs) < 18 else 5.2
    axes.text(0.0, 1.0, "\n".join(paragraphs), fontsize=size, va="top", linespacing=1.25, transform=axes.transAxes)

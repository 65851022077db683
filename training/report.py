"""The report page of a judgement: one HTML file that holds its pictures and needs no network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.cases import Case
from training.compare import UNITS

_WINDOW_HU = (-160, 240)  # soft tissue
_TRUE, _FOUND = "#3ddc84", "#ffb000"
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums;display:block;overflow:auto}"
    "td,th{border-bottom:1px solid #ddd;padding:.2rem .6rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}figure{margin:1rem 0}"
)
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Picture:
    """One plane of a case, as a reader looks at it. proportion: height of a pixel over its width."""

    title: str
    hounsfield: NDArray[np.generic]
    found: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    proportion: float


def picture(case: Case, found: NDArray[np.bool_]) -> Picture:
    """The plane on which found and truth differ most, anterior up and the patient's right on the left."""
    plane = int((found ^ case.truth).sum(axis=(1, 2)).argmax()) if case.plane is None else case.plane
    _, down, right = (letter.value for letter in case.volume.grid.geometry.get_closest_patient_orientation())
    turned = (slice(None, None, -1 if down in "AI" else 1), slice(None, None, -1 if right in "RA" else 1))
    parts = [array[plane][turned].copy() for array in (case.volume.hounsfield, found, case.truth)]
    row_mm, column_mm = case.volume.grid.geometry.pixel_spacing
    return Picture(f"{case.name}, slice {plane + 1}", parts[0], parts[1], parts[2], row_mm / column_mm)


def write_report(
    path: Path, summary: Mapping[str, Any], tables: Sequence[Sequence[Row]], worst: Sequence[Picture]
) -> None:
    """Write the page. summary: of `training.evaluate.write`. tables: of each model the rows of the cases."""
    model = summary["model"]
    title = f"{model['name']} {model['version']} on {summary['cases']} cases"
    parts = [
        f"<h1>{escape(title)}</h1><p>Weights {escape(model['sha256'])}. {summary['patients']} patients.</p>",
        f"<h2>Protocol</h2><p>{escape(summary['protocol'])}</p><p>{escape(summary['rules'])}</p>",
        "<h2>Figures</h2>" + _figures(summary),
        _image("Volumes (Bland-Altman) and the spread of each figure", _plots(tables[0], summary["volume"])),
    ]
    if "against" in summary:
        parts += [_against(summary), _image("Each case with both models", _pairs(tables[0], tables[1]))]
    parts += [
        "<h2>Worst cases</h2><p>Green: the truth; yellow: what was found.</p>",
        *(_image(one.title, _outlines(one)) for one in worst),
        "<h2>All cases</h2>" + _cases(tables[0]),
    ]
    style = f"<meta charset='utf-8'><title>{escape(title)}</title><style>{_STYLE}</style>"
    path.write_text(f"<!doctype html><html lang='en'><head>{style}</head><body>{''.join(parts)}</body></html>", "utf-8")


def _figures(summary: Mapping[str, Any]) -> str:
    heads = ("figure", "mean", "95 % CI", "median", "95 % CI", "5th percentile", "95th percentile", "infinite")
    rows = [
        (
            _name(name),
            one["mean"],
            one["mean_ci"],
            one["median"],
            one["median_ci"],
            one["p5"],
            one["p95"],
            str(one["infinite"]),
        )
        for name, one in summary["figures"].items()
    ]
    volume, zero = summary["volume"], summary["zero_dice"]
    words = (
        f"Volume, found minus true: bias {_text(volume['bias_ml'])} mL (95 % CI {_text(volume['bias_ci_ml'])}), 95 % "
        f"limits of agreement {_text(volume['limits_ml'])} mL; in percent of the true volume "
        f"{_text(volume['bias_percent'])}, limits {_text(volume['limits_percent'])}."
        f"Concordance (Lin) {_text(volume['ccc'])} ({_text(volume['ccc_ci'])}). "
        f"Dice of zero in {zero['count']} of {summary['cases']} cases ({zero['share']:.1%})."
    )
    return _table(heads, rows) + f"<p>{escape(words)}</p>"


def _against(summary: Mapping[str, Any]) -> str:
    other = summary["against"]["model"]
    heads = ("figure", "pairs", "left out", "mean difference", "95 % CI", "median", "better in", "worse in")
    rows = [
        (_name(one["figure"]), str(one["pairs"]), str(one["left_out"]), one["mean"], one["mean_ci"], one["median"],
         str(one["better"]), str(one["worse"]))
        for one in summary["differences"]
    ]  # fmt: skip
    words = f"{other['name']} {other['version']} (weights {other['sha256']}) minus the model above, case by case."
    return f"<h2>Compared</h2><p>{escape(words)}</p>" + _table(heads, rows)


def _cases(rows: Sequence[Row]) -> str:
    heads = ("case", *(_name(name) for name in UNITS), "true mL", "found mL", "flags")
    ordered = sorted(rows, key=lambda row: float(row["dice"]))
    cells = [
        (row["name"], *(row[name] for name in UNITS), row["true_ml"], row["found_ml"], row["flags"]) for row in ordered
    ]
    return _table(heads, cells)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["".join(f"<th>{escape(head)}</th>" for head in heads)]
    lines += ["".join(f"<td>{escape(_text(cell))}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{_text(value[0])} to {_text(value[1])}"
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    return "∞" if math.isinf(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _name(figure: str) -> str:
    return " ".join(
        filter(
            None,
            [
                figure.removesuffix("_mm").removesuffix("_ml").removesuffix("_mb").replace("_", " "),
                UNITS[figure] and f"({UNITS[figure]})",
            ],
        )
    )


def _plots(rows: Sequence[Row], volume: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    agreement, overlaps, distances = figure.subplots(1, 3)
    true_ml, found_ml = (np.array([row[name] for row in rows], float) for name in ("true_ml", "found_ml"))
    agreement.scatter((true_ml + found_ml) / 2, found_ml - true_ml, s=18)
    for height, style in ((volume["bias_ml"], "-"), *((limit, "--") for limit in volume["limits_ml"])):
        if math.isfinite(height):
            agreement.axhline(height, color="black", linestyle=style, linewidth=1)
    agreement.set(xlabel="mean of found and true, mL", ylabel="found minus true, mL")
    for axes, names in ((overlaps, ("dice", "jaccard", "precision", "recall", "surface_dice")),
                        (distances, ("hd95_mm", "assd_mm"))):  # fmt: skip
        values = [[row[name] for row in rows if math.isfinite(row[name])] for name in names]
        axes.boxplot(values, tick_labels=[_name(name) for name in names], whis=(5, 95))
    overlaps.set_ylim(-0.02, 1.02)
    distances.set_ylabel("mm, finite ones")
    return figure


def _pairs(first: Sequence[Row], second: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("dice", "volume_error_ml"), strict=True):
        one, other = ([row[name] for row in rows] for rows in (first, second))
        axes.scatter(one, other, s=18)
        top = max([1.0 if name == "dice" else 0.0, *one, *other])
        axes.plot([0, top], [0, top], color="black", linewidth=1)
        axes.set(xlabel=f"{_name(name)}, first model", ylabel="second model")
    return figure


def _outlines(one: Picture) -> Figure:
    figure = Figure(
        figsize=(6, 6 * one.proportion * one.hounsfield.shape[0] / one.hounsfield.shape[1]), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(one.hounsfield, cmap="gray", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1], aspect=one.proportion)
    for mask, colour in ((one.truth, _TRUE), (one.found, _FOUND)):
        if mask.any():
            edges = [np.arange(-1, length + 1) for length in mask.shape]  # closed at the edge of the picture
            axes.contour(edges[1], edges[0], np.pad(mask, 1).astype(float), [0.5], colors=colour, linewidths=1.2)
    axes.set_axis_off()
    return figure


def _image(title: str, figure: Figure) -> str:
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    text = escape(title, quote=True)
    return f'<figure><figcaption>{text}</figcaption><img alt="{text}" src="data:image/png;base64,{data}"></figure>'

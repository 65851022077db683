"""The finding at a glance: a montage of slices with the outline of the pancreas. A picture for people, not a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from highdicom import VolumeGeometry
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from pipeline.measure import measure
from pipeline.provenance import volume_words
from pipeline.volume import Segmentation, Volume

_WINDOW_HU = (-160, 240)  # soft tissue
_BODY_HU = -300
_PANELS = (3, 4)
_PANEL_INCHES = 2.6
_OUTLINE = "#ffb000"


def draw_overlay(volume: Volume, segmentation: Segmentation, path: Path) -> None:
    """Write a PNG of twelve slices through the pancreas; of the whole volume where none was found.

    Rows and columns are shown as they are stored, in the proportion of their spacing, cropped to the body; the letters
    at the edges are the patient's sides. No name and no identifier is drawn.
    segmentation: on the grid of the volume (ValueError otherwise).
    """
    height = _PANELS[0] * _PANEL_INCHES * proportion(volume, segmentation, _PANELS[0] * _PANELS[1])
    figure = Figure(
        figsize=(_PANELS[1] * _PANEL_INCHES, height + 0.5),
        facecolor="black",
        dpi=130,
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
    )
    canvas = FigureCanvasAgg(figure)
    words = volume_words(measure(segmentation, volume))
    figure.suptitle(f"Pancreas {words} (AI, unverified, not for diagnosis)", color="white", fontsize=12)
    draw_slices(list(figure.subplots(*_PANELS, squeeze=False).ravel()), volume, segmentation)
    canvas.print_png(path)


def draw_slices(panels: Sequence[Axes], volume: Volume, segmentation: Segmentation) -> None:
    """Draw a slice on each panel, from one end of the organ to the other, as `draw_overlay` says."""
    chosen = _choose_slices(segmentation.mask, len(panels))
    rows, columns = _body(volume.hounsfield[chosen])
    row_mm, column_mm = volume.grid.geometry.pixel_spacing
    for axes in panels:
        axes.set_axis_off()
    for axes, index in zip(panels, chosen, strict=False):
        _draw_slice(axes, volume.hounsfield[index, rows, columns], segmentation.mask[index, rows, columns])
        axes.set_aspect(row_mm / column_mm)
        _annotate(axes, volume.grid.geometry, f"{index + 1}/{len(segmentation.mask)}")


def proportion(volume: Volume, segmentation: Segmentation, count: int) -> float:
    """Height by width of so many slices as `draw_slices` shows them."""
    rows, columns = _body(volume.hounsfield[_choose_slices(segmentation.mask, count)])
    row_mm, column_mm = volume.grid.geometry.pixel_spacing
    return float((rows.stop - rows.start) * row_mm / ((columns.stop - columns.start) * column_mm))


def _choose_slices(mask: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    first, last = (filled[0], filled[-1]) if len(filled) else (0, len(mask) - 1)
    return np.unique(np.linspace(first, last, count).round().astype(np.intp))


def _body(hounsfield: NDArray[np.generic]) -> tuple[slice, slice]:
    """Rows and columns that hold more than air; all of them where nothing does."""
    tissue = np.greater(hounsfield, _BODY_HU)
    return _extent(tissue.any(axis=(0, 2))), _extent(tissue.any(axis=(0, 1)))


def _extent(filled: NDArray[np.bool_]) -> slice:
    where = np.flatnonzero(filled)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) > 1 else slice(0, len(filled))


def _draw_slice(axes: Axes, hounsfield: NDArray[np.generic], mask: NDArray[np.bool_]) -> None:
    low, high = _WINDOW_HU
    axes.imshow(hounsfield, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
    if mask.any():
        # A margin of one voxel closes the outline where the organ reaches the edge of the picture.
        edges = [np.arange(-1, length + 1) for length in mask.shape]
        axes.contour(edges[1], edges[0], np.pad(mask, 1).astype(float), [0.5], colors=_OUTLINE, linewidths=1.0)
    axes.set_xlim(-0.5, mask.shape[1] - 0.5)
    axes.set_ylim(mask.shape[0] - 0.5, -0.5)


def _annotate(axes: Axes, geometry: VolumeGeometry, text: str) -> None:
    """Slice number, and the side of the patient to which each edge of the picture points."""
    _, down, right = (direction.value for direction in geometry.get_closest_patient_orientation())
    opposite = dict(zip("LRAPHF", "RLPAFH", strict=True))
    for x, y, letter in (
        (0.97, 0.5, right),
        (0.03, 0.5, opposite[right]),
        (0.5, 0.04, down),
        (0.5, 0.96, opposite[down]),
    ):
        axes.text(x, y, letter, color="white", fontsize=8, ha="center", va="center", transform=axes.transAxes)
    axes.text(0.02, 0.98, text, color="white", fontsize=7, ha="left", va="top", transform=axes.transAxes)

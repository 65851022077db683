"""What a run writes about itself: a CSV, TensorBoard events, curves and pictures of what it finds."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from training.validation import Figures, Seen

_COLUMNS = ("step", "seconds", "learning_rate", "loss")


class Journal:
    """Keeps `log.csv`, `curves.png` and `previews/` of a run's folder, and `tensorboard/` where it is wanted.

    Raises ValueError where TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self._folder = folder
        self._events = _events(folder / "tensorboard") if tensorboard else None

    def write(self, figures: Figures, **row: float) -> None:
        """Write a validation down. row: step, seconds, learning_rate, loss."""
        entry = {**{name: row[name] for name in _COLUMNS}, **{f"dice_{k}": v for k, v in figures.groups.items()}}
        path = self._folder / "log.csv"
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(entry))
            if is_new:
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" for name, value in entry.items()})
        draw_curves(path, self._folder / "curves.png")
        if figures.kept:
            draw_previews(figures.kept, self._folder / "previews" / f"step-{int(row['step']):07d}.png")
        if self._events:
            for name, value in entry.items():
                self._events.add_scalar(name, value, int(row["step"]))
            self._events.flush()


def draw_curves(log: Path, picture: Path) -> None:
    """Draw a log's loss and Dice over the steps."""
    with log.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    steps = [float(row["step"]) for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, [float(row["loss"]) for row in rows], marker=".")
    left.set(title="Training loss", xlabel="step", ylabel="loss")
    for name in (name for name in rows[0] if name.startswith("dice_")):
        right.plot(steps, [float(row[name]) for row in rows], marker=".", label=name.removeprefix("dice_"))
    right.set(title="Validation", xlabel="step", ylabel="Dice", ylim=(0, 1))
    right.legend()
    figure.savefig(picture, dpi=120)


def draw_previews(seen: Sequence[Seen], picture: Path) -> None:
    """Draw the results, each in the slice with most of the truth: truth green and dashed, found orange."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    columns = min(3, len(seen))
    rows = -(-len(seen) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.4 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    with mpl.rc_context({"contour.negative_linestyle": "solid"}):
        for axes, one in zip(figure.axes, seen, strict=False):
            _draw(axes, one)
    figure.savefig(picture, dpi=110)


def _draw(axes: Any, seen: Seen) -> None:
    check = seen.check
    truth = (check.labels == 1).numpy()
    plane = int(truth.sum((1, 2)).argmax()) if check.plane is None else check.plane
    axes.imshow(check.image[plane].numpy(), cmap="gray")
    for mask, colour, style in ((truth[plane], "#40e060", "dashed"), (seen.found[plane].numpy(), "#ff9020", "solid")):
        if mask.any():
            axes.contour(np.asarray(mask, float), [0.5], colors=colour, linewidths=1, linestyles=style)
    axes.set_title(f"{check.name}: {seen.dice:.2f}", fontsize=8)


def _events(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("TensorBoard is not installed: pip install tensorboard") from None
    return SummaryWriter(str(folder))

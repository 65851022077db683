"""Two models on the same cases: what each figure gains or loses, case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.metrics import bootstrap

UNITS = {
    "dice": "", "jaccard": "", "precision": "", "recall": "", "surface_dice": "",
    "hd95_mm": "mm", "assd_mm": "mm", "volume_error_ml": "mL", "seconds": "s", "peak_mb": "MB",
}  # fmt: skip
"""The figures of a case, in the order of reports, with their units. volume_error_ml: without its sign."""
LESS_IS_BETTER = ("hd95_mm", "assd_mm", "volume_error_ml", "seconds", "peak_mb")


@dataclass(frozen=True)
class Difference:
    """Of one figure, second model minus first; mean and median are over the pairs where both are finite.

    left_out: pairs where one is infinite, as a mask was empty; they count as better or worse all the same. mean_ci:
    95 %, by bootstrap over patients; not a number for a single patient. better, worse: cases in which the second is so.
    """

    figure: str
    pairs: int
    left_out: int
    mean: float
    mean_ci: tuple[float, float]
    median: float
    better: int
    worse: int


def compare_models(
    first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]], patients: Sequence[str]
) -> list[Difference]:
    """Compare the figures of the same cases in the same order, each a mapping of at least `UNITS`."""
    return [
        _difference(
            name, np.array([[one[name], other[name]] for one, other in zip(first, second, strict=True)]), patients
        )
        for name in UNITS
    ]


def _difference(
    name: str, pairs: np.ndarray[tuple[int, ...], np.dtype[np.float64]], patients: Sequence[str]
) -> Difference:
    with np.errstate(invalid="ignore"):  # both infinite: neither better nor worse
        every = pairs[:, 1] - pairs[:, 0]
    gain = -every if name in LESS_IS_BETTER else every
    finite = np.isfinite(every)
    change = every[finite]
    kept = [patient for patient, is_finite in zip(patients, finite, strict=True) if is_finite]
    nothing = (float("nan"), float("nan"))
    return Difference(
        figure=name,
        pairs=len(change),
        left_out=int((~finite).sum()),
        mean=float(change.mean()) if len(change) else nothing[0],
        mean_ci=bootstrap(change, kept, lambda drawn: float(drawn.mean())) if len(change) else nothing,
        median=float(np.median(change)) if len(change) else nothing[0],
        better=int((gain > 0).sum()),
        worse=int((gain < 0).sum()),
    )

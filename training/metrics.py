"""How well one mask agrees with another, and what many such figures say together.

Surfaces are measured by MONAI, in mm by the true spacing. Where a mask is empty: both empty, the overlaps are 1 and the
distances 0, for to say that nothing is there is right; one empty, the overlaps are 0 and the distances infinite. A
missed organ so counts as the worst in medians and percentiles; a mean is of the others, beside the number left out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray

TOLERANCE_MM = 2.0
"""Of the normalised surface Dice. Our choice; figures of other tolerances cannot be compared with it."""
ZERO_DICE = 0.01
"""A Dice below this is a case in which the organ was not found."""
RESAMPLES = 2000
_SEED = 20
_Z = 1.96  # 95 % of a normal distribution

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Of one found mask with the true one. Overlaps are 0..1; hd95_mm and assd_mm infinite where one mask is empty.

    hd95_mm: the larger of both directed 95th percentiles of surface distances. assd_mm: the mean of the distances from
    both surfaces. surface_dice: share of both surfaces that lies within `TOLERANCE_MM` of the other.
    """

    dice: float
    jaccard: float
    precision: float
    recall: float
    hd95_mm: float
    assd_mm: float
    surface_dice: float


def compare_masks(found: Mask, truth: Mask, spacing_mm: Sequence[float]) -> Agreement:
    """Compare two masks of one shape, in two or three dimensions; spacing_mm: of each axis, at right angles.

    Raises ValueError where the shapes differ or the spacing is not of as many axes.
    """
    if found.shape != truth.shape or len(spacing_mm) != found.ndim:
        raise ValueError(f"masks of shapes {found.shape} and {truth.shape} with spacing {tuple(spacing_mm)}")
    both, of_found, of_truth = (int(np.count_nonzero(mask)) for mask in (found & truth, found, truth))
    if not of_found and not of_truth:
        return Agreement(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0)
    if not of_found or not of_truth:
        return Agreement(0.0, 0.0, 0.0, 0.0, math.inf, math.inf, 0.0)
    return Agreement(
        2 * both / (of_found + of_truth),
        both / (of_found + of_truth - both),
        both / of_found,
        both / of_truth,
        *_compare_surfaces(found, truth, [float(step) for step in spacing_mm]),
    )


def _compare_surfaces(found: Mask, truth: Mask, spacing_mm: list[float]) -> tuple[float, float, float]:
    where = np.nonzero(found | truth)
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in where)
    one, other = (torch.from_numpy(mask[box].astype(np.float32))[None, None] for mask in (found, truth))
    options = {"include_background": True, "spacing": spacing_mm}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensors that MONAI itself copies
        return (
            float(compute_hausdorff_distance(one, other, percentile=95, **options)),
            float(compute_average_surface_distance(one, other, symmetric=True, **options)),
            float(compute_surface_dice(one, other, [TOLERANCE_MM], use_subvoxels=True, **options)),
        )


@dataclass(frozen=True)
class Spread:
    """Of one figure over the cases. infinite: how many cases the mean leaves out, as they have no distance.

    p5, p95: percentiles, which count infinite distances as the worst. mean_ci, median_ci: 95 %, by bootstrap over
    patients.
    """

    count: int
    infinite: int
    mean: float
    mean_ci: tuple[float, float]
    median: float
    median_ci: tuple[float, float]
    p5: float
    p95: float


def spread(values: Sequence[float], patients: Sequence[str]) -> Spread:
    """Summarise a figure of each case; a patient's cases are drawn together. Raises ValueError without a case."""
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    return Spread(
        len(array),
        int((~finite).sum()),
        _finite_mean(array),
        bootstrap(array, patients, _finite_mean),
        float(np.median(array)),
        bootstrap(array, patients, _median),
        _percentile(array, 5),
        _percentile(array, 95),
    )


def bootstrap(values: Numbers, patients: Sequence[str], statistic: Callable[[Numbers], float]) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic over patients drawn with replacement; the same seed each time.

    values: one row for each case. patients: of each case. With one patient there is no interval: not a number.
    """
    if len(values) == 0 or len(values) != len(patients):
        raise ValueError(f"{len(values)} values of {len(patients)} cases")
    names = np.asarray(patients)
    groups = [np.flatnonzero(names == name) for name in sorted(set(patients))]
    if len(groups) < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(_SEED)
    drawn = generator.integers(len(groups), size=(RESAMPLES, len(groups)))
    figures = np.array([statistic(values[np.concatenate([groups[at] for at in row])]) for row in drawn])
    figures = figures[~np.isnan(figures)]  # where all that was drawn is one case, nothing correlates
    return (_percentile(figures, 2.5), _percentile(figures, 97.5)) if len(figures) else (math.nan, math.nan)


def _finite_mean(array: Numbers) -> float:
    finite = array[np.isfinite(array)]
    return float(finite.mean()) if len(finite) else math.inf


def _median(array: Numbers) -> float:
    return float(np.median(array))


def _percentile(array: Numbers, percent: float) -> float:
    # One of the values themselves: between a number and infinity there is nothing to interpolate.
    return float(np.percentile(array, percent, method="nearest"))


@dataclass(frozen=True)
class VolumeAgreement:
    """Of found with true volumes (Bland and Altman, 10.1016/S0140-6736(86)90837-8; Lin, 10.2307/2532051).

    bias_ml: mean of found minus true; limits_ml: bias -+ 1.96 SD, between which 95 % of differences are expected; not
    a number for fewer than two cases. The same in percent of the true volume, over cases that have one. ccc: Lin's
    concordance; not a number where no volume varies.
    """

    bias_ml: float
    bias_ci_ml: tuple[float, float]
    limits_ml: tuple[float, float]
    bias_percent: float
    limits_percent: tuple[float, float]
    ccc: float
    ccc_ci: tuple[float, float]


def compare_volumes(found_ml: Sequence[float], true_ml: Sequence[float], patients: Sequence[str]) -> VolumeAgreement:
    """Compare the volumes of the same cases."""
    pairs = np.column_stack([found_ml, true_ml]).astype(np.float64)
    difference = pairs[:, 0] - pairs[:, 1]
    some = pairs[:, 1] > 0
    percent = 100 * difference[some] / pairs[some, 1]
    return VolumeAgreement(
        float(difference.mean()),
        bootstrap(difference, patients, _finite_mean),
        _limits(difference),
        float(percent.mean()) if len(percent) else math.nan,
        _limits(percent),
        concordance(pairs),
        bootstrap(pairs, patients, concordance),
    )


def _limits(difference: Numbers) -> tuple[float, float]:
    if len(difference) < 2:
        return math.nan, math.nan
    reach = _Z * float(difference.std(ddof=1))
    return float(difference.mean()) - reach, float(difference.mean()) + reach


def concordance(pairs: Numbers) -> float:
    """Lin's concordance correlation coefficient of shape (n, 2)."""
    one, other = pairs[:, 0], pairs[:, 1]
    scale = one.var() + other.var() + (one.mean() - other.mean()) ** 2
    return float(2 * np.cov(one, other, ddof=0)[0, 1] / scale) if scale > 0 else math.nan

"""Probabilities on the model's grid -> Segmentation on the grid of the source."""

from __future__ import annotations

from functools import partial

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from torch import Tensor

from models.card import Card
from pipeline.agreement import Agreement
from pipeline.preprocess import covering_box, model_grid, resample, resample_planes
from pipeline.volume import Box, ConfidenceKind, Grid, Segmentation


def to_segmentation(
    probabilities: Tensor, card: Card, source: Grid, agreement: Agreement | None = None
) -> Segmentation:
    """The card's target where it is the most probable label, on the source grid, its largest connected component only.

    probabilities: shape (label, slice, row, column) on `model_grid(source, card)`, summing to 1 over the labels. They
    are interpolated to the source's voxels before they are compared, which keeps the surface smooth. By nnU-Net's
    convention their logarithms are: the same as to interpolate its logits, whose differences they share.
    agreement: of the passes that these are the mean of; their mean Dice is then the confidence.
    """
    scores = probabilities.numpy()
    grid = model_grid(source, card)
    mask = np.zeros(source.shape, np.bool_)
    kind = ConfidenceKind.AGREEMENT if agreement else ConfidenceKind.MEAN_PROBABILITY
    spread_ml = agreement.spread_ml(grid.voxel_volume_mm3) if agreement else None
    near = _box_of_candidates(scores[card.target], len(card.labels))
    if near is None:
        return Segmentation(mask, source, 0.0, 0, confidence_kind=kind, spread_ml=spread_ml)
    box = covering_box(grid[near], source)
    target, is_target = _compare(scores[(slice(None), *near)], grid[near], source[box], card)
    largest, components = largest_component(is_target)
    mask[box] = largest
    size = int(np.count_nonzero(largest))
    left_out_ml = (int(np.count_nonzero(is_target)) - size) * source.voxel_volume_mm3 / 1000
    confidence = 0.0
    if size:
        confidence = agreement.dice if agreement else float(target[largest].mean(dtype=np.float64))
    return Segmentation(mask, source, confidence, components, left_out_ml, kind, spread_ml)


def _box_of_candidates(target: NDArray[np.float32], labels: int) -> Box | None:
    """The box outside of which the target cannot win.

    To be the most probable of n labels it needs at least 1/n, and interpolation never exceeds the largest of its
    corners: one voxel around those that reach 1/n is enough. Only within the box are all labels interpolated, which
    bounds memory.
    """
    return bounding_box(target >= 1 / labels, margin=1)


def bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> Box | None:
    """The smallest box around a mask, wider by a margin on every side where there is room; None where it is empty."""
    sides = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(sides[0]):
        return None
    bounds = (
        (max(0, int(side[0]) - margin), min(size, int(side[-1]) + 1 + margin))
        for side, size in zip(sides, mask.shape, strict=True)
    )
    low, middle, high = (slice(start, stop) for start, stop in bounds)
    return low, middle, high


def _compare(
    scores: NDArray[np.float32], grid: Grid, source: Grid, card: Card
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probability of the target on `source`, and where it beats every other label; one label in memory at a time."""
    probability = resample(scores[card.target], grid, source, outside=0.0)
    wins = probability > 0
    stretch = _resample_logarithm if card.convention == "nnunet" else partial(resample, outside=0.0)
    best = stretch(scores[card.target], grid, source) if card.convention == "nnunet" else probability
    for label in range(len(scores)):
        if label != card.target:
            wins &= best > stretch(scores[label], grid, source)
    return probability, wins


def _resample_logarithm(probability: NDArray[np.float32], grid: Grid, source: Grid) -> NDArray[np.float32]:
    logarithm = np.log(np.maximum(probability, np.finfo(np.float32).tiny))
    return resample_planes(logarithm, grid, source, outside=0.0, interpolator=sitk.sitkLinear)


def largest_component(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """The largest of the pieces that hang together by faces, edges or corners, and how many pieces there are."""
    if not mask.any():
        return mask, 0
    components = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    relabel = sitk.RelabelComponentImageFilter()
    largest_first = relabel.Execute(components)
    return sitk.GetArrayFromImage(largest_first) == 1, int(relabel.GetOriginalNumberOfObjects())

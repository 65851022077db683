"""How far several passes of a model, of its members or over mirrored images, agree on what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

Packed = NDArray[np.uint8]
"""A mask with eight voxels to the byte: many passes over a large volume then need little memory."""


@dataclass(frozen=True)
class Agreement:
    """Structure-wise uncertainty of a segmentation, from two passes or more.

    dice: mean over all pairs of passes of the Dice of their masks, 0..1; two empty masks agree. It falls and rises with
        the Dice against a manual outline (Roy et al., "Bayesian QuickNAT", NeuroImage 195:11-22, 2019,
        doi:10.1016/j.neuroimage.2019.03.042, of passes that differ by dropout).
    voxels: how many each pass found.
    """

    dice: float
    voxels: tuple[int, ...]

    def spread_ml(self, voxel_volume_mm3: float) -> float:
        """Standard deviation of the passes' volumes, in mL."""
        return stdev(self.voxels) * voxel_volume_mm3 / 1000


def pack(mask: NDArray[np.bool_]) -> Packed:
    """A mask of any shape for `agree`."""
    return np.packbits(mask)


def agree(masks: Sequence[Packed]) -> Agreement:
    """Compare the masks of two passes or more, all of one shape."""
    voxels = tuple(_count(mask) for mask in masks)
    pairs = combinations(zip(masks, voxels, strict=True), 2)
    dice = fmean(
        2 * _count(one & other) / (size + other_size) if size + other_size else 1.0
        for (one, size), (other, other_size) in pairs
    )
    return Agreement(dice, voxels)


def _count(mask: Packed) -> int:
    return int(np.bitwise_count(mask).sum(dtype=np.int64))

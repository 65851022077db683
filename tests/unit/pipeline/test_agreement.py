"""Agreement of passes on masks made up by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.agreement import Agreement, agree, pack


def bar(start: int, stop: int) -> NDArray[np.bool_]:
    """A mask of 3 x 5 x 7 voxels that is no whole number of bytes, with these of them."""
    mask = np.zeros(3 * 5 * 7, bool)
    mask[start:stop] = True
    return mask.reshape(3, 5, 7)


def of(*masks: NDArray[np.bool_]) -> Agreement:
    return agree([pack(mask) for mask in masks])


def test_dice_is_the_mean_over_all_pairs() -> None:
    agreement = of(bar(0, 40), bar(10, 40), bar(30, 105))
    pairs = [2 * 30 / (40 + 30), 2 * 10 / (40 + 75), 2 * 10 / (30 + 75)]
    assert agreement.dice == pytest.approx(sum(pairs) / 3)
    assert agreement.voxels == (40, 30, 75)


def test_the_same_everywhere_is_full_agreement_without_spread() -> None:
    agreement = of(bar(5, 60), bar(5, 60), bar(5, 60))
    assert (agreement.dice, agreement.spread_ml(2.0)) == (1.0, 0.0)


def test_nothing_agrees_with_nothing_and_with_nothing_else() -> None:
    assert of(bar(0, 0), bar(0, 0)).dice == 1.0
    assert of(bar(0, 0), bar(0, 9)).dice == 0.0


def test_the_spread_is_the_standard_deviation_of_the_volumes() -> None:
    volumes_ml = [40 * 2.5 / 1000, 30 * 2.5 / 1000, 75 * 2.5 / 1000]
    spread_ml = of(bar(0, 40), bar(10, 40), bar(30, 105)).spread_ml(2.5)
    assert spread_ml == pytest.approx(np.std(volumes_ml, ddof=1))

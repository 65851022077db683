"""Figures against truths worked out by hand, and against SimpleITK."""

import math

import numpy as np
import pytest
import SimpleITK as sitk

from training.compare import UNITS, compare_models
from training.metrics import Mask, bootstrap, compare_masks, compare_volumes, concordance, spread

SPACING_MM = (5.0, 1.0, 2.0)


def cube(shape: tuple[int, int, int] = (12, 20, 20), shift: tuple[int, int, int] = (0, 0, 0)) -> Mask:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(4 + step, 8 + step) for step in shift)] = True
    return mask


def ball(radius_mm: float, spacing_mm: tuple[float, float, float]) -> Mask:
    axes = np.ogrid[tuple(slice(-round(24 / step), round(24 / step) + 1) for step in spacing_mm)]
    return sum((axis * step) ** 2 for axis, step in zip(axes, spacing_mm, strict=True)) <= radius_mm**2


def test_a_mask_agrees_with_itself() -> None:
    agreement = compare_masks(cube(), cube(), SPACING_MM)
    assert (agreement.dice, agreement.jaccard, agreement.precision, agreement.recall) == (1, 1, 1, 1)
    assert (agreement.hd95_mm, agreement.assd_mm, agreement.surface_dice) == (0, 0, 1)


@pytest.mark.parametrize(("axis", "step_mm"), enumerate(SPACING_MM))
def test_a_cube_shifted_by_one_voxel_is_as_far_away_as_the_voxel_is_wide(axis: int, step_mm: float) -> None:
    shift = [0, 0, 0]
    shift[axis] = 1
    agreement = compare_masks(cube(shift=(shift[0], shift[1], shift[2])), cube(), SPACING_MM)
    # 64 voxels each, of which 48 are shared.
    assert agreement.dice == pytest.approx(48 / 64)
    assert agreement.jaccard == pytest.approx(48 / 80)
    assert (agreement.precision, agreement.recall) == (48 / 64, 48 / 64)
    assert agreement.hd95_mm == pytest.approx(step_mm)
    assert 0 < agreement.assd_mm < step_mm
    assert (agreement.surface_dice == pytest.approx(1)) == (step_mm <= 2)


def test_a_larger_mask_loses_precision_and_keeps_recall() -> None:
    inner = cube()
    outer = inner.copy()
    outer[4:8, 4:8, 4:12] = True
    agreement = compare_masks(outer, inner, SPACING_MM)
    assert (agreement.precision, agreement.recall) == (0.5, 1.0)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 0.8, 0.8)])
def test_balls_are_apart_by_the_difference_of_their_radii(spacing_mm: tuple[float, float, float]) -> None:
    agreement = compare_masks(ball(17, spacing_mm), ball(13, spacing_mm), spacing_mm)
    assert agreement.dice == pytest.approx(2 * 13**3 / (13**3 + 17**3), rel=0.02)
    assert agreement.assd_mm == pytest.approx(4, abs=0.4)
    assert agreement.hd95_mm == pytest.approx(4, abs=0.9)
    assert agreement.surface_dice < 0.01


def test_distances_are_those_of_simpleitk() -> None:
    generator = np.random.default_rng(1)
    found, truth = ball(15, SPACING_MM), np.roll(ball(13, SPACING_MM), (1, 3, -2), (0, 1, 2))
    found = found & (generator.random(found.shape) > 0.01)
    agreement = compare_masks(found, truth, SPACING_MM)
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (found, truth)]
    for image in images:
        image.SetSpacing(SPACING_MM[::-1])
    edges = [sitk.GetArrayFromImage(sitk.BinaryContour(image, False)) > 0 for image in images]
    far = [
        np.abs(
            sitk.GetArrayFromImage(
                sitk.SignedMaurerDistanceMap(
                    _image(edge), insideIsPositive=False, squaredDistance=False, useImageSpacing=True
                )
            )
        )
        for edge in edges
    ]
    distances = far[1][edges[0]], far[0][edges[1]]
    assert agreement.hd95_mm == pytest.approx(max(np.percentile(each, 95) for each in distances), abs=1e-3)
    assert agreement.assd_mm == pytest.approx(np.concatenate(distances).mean(), abs=1e-3)


def _image(mask: Mask) -> sitk.Image:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(SPACING_MM[::-1])
    return image


def test_masks_of_one_slice_are_judged_in_the_plane() -> None:
    agreement = compare_masks(cube(shift=(0, 0, 1))[5], cube()[5], SPACING_MM[1:])
    assert agreement.hd95_mm == pytest.approx(2.0)
    assert agreement.dice == pytest.approx(12 / 16)


def test_empty_masks_are_judged_by_the_stated_rule() -> None:
    nothing = np.zeros_like(cube())
    both = compare_masks(nothing, nothing, SPACING_MM)
    assert (both.dice, both.hd95_mm, both.surface_dice) == (1, 0, 1)
    for found, truth in ((nothing, cube()), (cube(), nothing)):
        one = compare_masks(found, truth, SPACING_MM)
        assert (one.dice, one.precision, one.recall, one.surface_dice) == (0, 0, 0, 0)
        assert (one.hd95_mm, one.assd_mm) == (math.inf, math.inf)


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        compare_masks(cube(), cube((12, 20, 21)), SPACING_MM)


def test_a_missed_case_is_the_worst_in_median_and_percentiles_and_counted_beside_the_mean() -> None:
    summary = spread([1.0, 3.0, math.inf, math.inf, math.inf], list("abcde"))
    assert (summary.count, summary.infinite, summary.mean) == (5, 3, 2.0)
    assert (summary.median, summary.p5, summary.p95) == (math.inf, 1.0, math.inf)


def test_the_interval_of_a_mean_is_near_that_of_the_normal_distribution_and_seeded() -> None:
    values = np.random.default_rng(3).normal(10, 2, 200)
    low, high = bootstrap(values, [str(n) for n in range(200)], lambda drawn: float(drawn.mean()))
    half = 1.96 * values.std(ddof=1) / math.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06)
    assert (low, high) == bootstrap(values, [str(n) for n in range(200)], lambda drawn: float(drawn.mean()))


def test_cases_of_one_patient_are_drawn_together() -> None:
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 50)
    alone = bootstrap(values, [str(n) for n in range(200)], lambda drawn: float(drawn.mean()))
    together = bootstrap(values, [str(n // 50) for n in range(200)], lambda drawn: float(drawn.mean()))
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])
    assert all(math.isnan(end) for end in bootstrap(values, ["one"] * 200, lambda drawn: float(drawn.mean())))


def test_volumes_agree_within_bland_and_altmans_limits() -> None:
    volume = compare_volumes([11, 22, 33, 40], [10, 20, 30, 40], list("abcd"))
    assert volume.bias_ml == pytest.approx(1.5)
    sd = np.std([1, 2, 3, 0], ddof=1)
    assert volume.limits_ml == pytest.approx((1.5 - 1.96 * sd, 1.5 + 1.96 * sd))
    assert volume.bias_percent == pytest.approx(7.5)


def test_concordance_falls_with_scatter_and_with_bias() -> None:
    same = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    assert concordance(same) == pytest.approx(1)
    # Means 2 and 3, both of variance 2/3, covariance 2/3: 2 * 2/3 / (4/3 + 1).
    assert concordance(same + np.array([1.0, 0.0])) == pytest.approx((4 / 3) / (4 / 3 + 1))
    assert math.isnan(concordance(np.array([[2.0, 2.0], [2.0, 2.0]])))


def test_two_models_are_compared_case_by_case() -> None:
    first = [dict.fromkeys(UNITS, value) for value in (0.1, 0.5, 0.9)]
    second = [dict.fromkeys(UNITS, value + 0.05) for value in (0.1, 0.5)] + [dict.fromkeys(UNITS, math.inf)]
    differences = {one.figure: one for one in compare_models(first, second, ["a", "b", "c"])}
    dice, distance = differences["dice"], differences["hd95_mm"]
    assert (dice.pairs, dice.left_out, dice.better, dice.worse) == (2, 1, 3, 0)
    assert dice.mean == pytest.approx(0.05)
    assert dice.mean_ci == pytest.approx((0.05, 0.05))  # the difference is the same everywhere; the figures are not
    assert (distance.better, distance.worse) == (0, 3)

"""From probabilities on the model's grid to a mask on the grid of the source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from highdicom import VolumeGeometry

from pipeline.agreement import Agreement
from pipeline.postprocess import bounding_box, to_segmentation
from pipeline.preprocess import model_grid, resample
from pipeline.volume import Grid
from tests.fakes import CARD
from tests.phantom import AXIAL, OBLIQUE

THREE_LABELS = replace(CARD, labels={0: "background", 1: "duodenum", 2: "pancreas"}, target=2, spacing_mm=(3, 2, 2))


def source(orientation: tuple[float, ...] = OBLIQUE) -> Grid:
    geometry = VolumeGeometry.from_attributes(
        image_position=(5.0, 6.0, 7.0),
        image_orientation=orientation,
        rows=40,
        columns=50,
        pixel_spacing=(1.1, 0.9),
        spacing_between_slices=2.5,
        number_of_frames=16,
        coordinate_system="PATIENT",
    )
    return Grid(geometry)


def random_probabilities(seed: int, sharpness: float) -> torch.Tensor:
    shape = model_grid(source(), THREE_LABELS).shape
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(sharpness * torch.randn(3, *shape, generator=generator), dim=0)


@pytest.mark.parametrize("sharpness", [1.0, 6.0])
def test_cropping_changes_nothing(sharpness: float) -> None:
    """The mask is the argmax of all labels interpolated everywhere, though only a box of them is."""
    probabilities = random_probabilities(4, sharpness)
    probabilities[2, :4] = 0
    probabilities[2, :, :, 12:] = 0
    grid = model_grid(source(), THREE_LABELS)
    everywhere = np.stack([resample(label.numpy(), grid, source(), outside=0) for label in probabilities])
    wins = (everywhere[2] > everywhere[0]) & (everywhere[2] > everywhere[1])
    segmentation = to_segmentation(probabilities, THREE_LABELS, source())
    assert segmentation.mask.any()
    assert not (segmentation.mask & ~wins).any()
    labelled_alike = segmentation.mask == wins
    assert labelled_alike.mean() > 0.9, "what is missing are the smaller components"


def test_a_label_can_win_between_two_voxels_where_it_wins_at_neither() -> None:
    grid = model_grid(source(AXIAL), THREE_LABELS)
    probabilities = torch.zeros(3, *grid.shape)
    probabilities[0] = 1
    left, right = 10, 11
    for column, winner in ((left, 0), (right, 1)):
        probabilities[:, :, :, column] = 0
        probabilities[winner, :, :, column] = 0.55
        probabilities[2, :, :, column] = 0.45
    segmentation = to_segmentation(probabilities, THREE_LABELS, source(AXIAL))
    assert segmentation.mask.any()


def test_only_the_largest_component_is_kept_and_confidence_is_its_mean() -> None:
    grid = model_grid(source(AXIAL), CARD)
    target = torch.zeros(*grid.shape)
    target[4:12, 4:20, 4:20] = 0.8
    target[20:24, 30:34, 30:34] = 0.99
    segmentation = to_segmentation(torch.stack([1 - target, target]), CARD, source(AXIAL))
    inside = np.argwhere(segmentation.mask)
    expected = source(AXIAL).to_indices(grid.to_reference(np.array([[7.5, 11.5, 11.5]])))[0]
    np.testing.assert_allclose(inside.mean(axis=0), expected, atol=0.5)
    assert 0.7 < segmentation.confidence < 0.8001


def test_components_that_touch_only_at_a_corner_are_one() -> None:
    grid = model_grid(source(AXIAL), replace(CARD, spacing_mm=(2.5, 1.1, 0.9)))
    card = replace(CARD, spacing_mm=(2.5, 1.1, 0.9))
    target = torch.zeros(*grid.shape)
    target[4:8, 4:8, 4:8] = 1
    target[8:10, 8:10, 8:10] = 1
    segmentation = to_segmentation(torch.stack([1 - target, target]), card, source(AXIAL))
    assert segmentation.mask.sum() == 64 + 8


def test_case_23_nothing_found() -> None:
    shape = model_grid(source(), CARD).shape
    segmentation = to_segmentation(torch.stack([torch.ones(shape), torch.zeros(shape)]), CARD, source())
    assert segmentation.mask.shape == (16, 40, 50)
    assert not segmentation.mask.any()
    assert segmentation.confidence == 0


def test_agreement_of_passes_takes_the_place_of_the_mean_probability() -> None:
    shape = model_grid(source(AXIAL), CARD).shape
    target = torch.zeros(shape)
    target[3:9, 5:15, 5:15] = 0.75
    probabilities, agreement = torch.stack([1 - target, target]), Agreement(0.625, (500, 700))
    segmentation = to_segmentation(probabilities, CARD, source(AXIAL), agreement)
    assert (segmentation.confidence, segmentation.confidence_kind) == (0.625, "agreement")
    assert segmentation.spread_ml == pytest.approx(np.std([0.5, 0.7], ddof=1)), "voxels of the model's grid, 1 mm3 each"
    nothing = to_segmentation(torch.stack([1 - 0 * target, 0 * target]), CARD, source(AXIAL), agreement)
    assert (nothing.confidence, nothing.confidence_kind) == (0.0, "agreement")
    assert nothing.spread_ml == segmentation.spread_ml
    assert to_segmentation(probabilities, CARD, source(AXIAL)).confidence_kind == "mean-probability"


def test_a_bounding_box_has_a_margin_where_there_is_room() -> None:
    mask = np.zeros((5, 6, 7), bool)
    assert bounding_box(mask) is None
    mask[0, 2:4, 5] = True
    assert bounding_box(mask) == (slice(0, 1), slice(2, 4), slice(5, 6))
    assert bounding_box(mask, margin=2) == (slice(0, 3), slice(0, 6), slice(3, 7))

"""Crops of examples on a model's grid: where they lie, that each example has its turn, and that the cache is of now."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.preprocess import model_grid
from tests.unit.training.test_recipes import RECIPES, body, decathlon, small, write_nifti
from training.crops import Cache, Crops, crop, on_grid
from training.datasets import find_examples, read_example
from training.examples import Example
from training.recipe import Recipe


@pytest.fixture
def recipe() -> Recipe:
    return small(next(path for path in RECIPES if path.stem == "spleen-3d"))


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    decathlon(tmp_path / "data", "spleen")
    return find_examples(tmp_path / "data")


@pytest.mark.parametrize("middle", [(0, 0, 0), (5, 6, 7), (9, 11, 13)])
def test_a_crop_lies_inside_and_what_is_missing_is_nothing(middle: tuple[int, ...]) -> None:
    array = np.arange(1, 1 + 10 * 12 * 14).reshape(10, 12, 14)
    inside = crop(array, np.array(middle), (4, 4, 4))
    assert inside.shape == (4, 4, 4)
    assert (inside > 0).all()
    assert array[middle] in inside
    wide = crop(array, np.array(middle), (20, 4, 4))
    assert wide.shape == (20, 4, 4)
    assert (wide[:5] == 0).all()
    assert (wide[5:15] > 0).all()


def test_labels_on_a_coarser_grid_keep_their_volume(recipe: Recipe, examples: list[Example]) -> None:
    labelled = read_example(examples[0], {"spleen": 1})
    card = recipe.model_copy(update={"card": recipe.card.model_copy(update={"spacing_mm": (6.0, 6.0, 6.0)})}).to_card(
        "1"
    )
    labels = on_grid(labelled, card)
    assert labels.shape == model_grid(labelled.volume.grid, card).shape
    assert labels.sum() * 216 == pytest.approx(float(labelled.labels.sum()) * 64, rel=0.1)


def test_every_example_has_its_turn_in_every_epoch(tmp_path: Path, recipe: Recipe, examples: list[Example]) -> None:
    crops = Crops(recipe, examples, [], tmp_path / "cache")
    assert crops.steps_per_epoch == 2
    batches = [crops.draw(step)[0][0] for step in range(3)]  # six places: two epochs of three
    assert all(part.images.shape == (2, 1, 16, 16, 16) for part in batches)
    again = crops.draw(1)[0][0]
    assert np.array_equal(again.images, batches[1].images)
    assert not np.array_equal(batches[0].images, batches[1].images)
    assert any(int(part.labels.sum()) for part in batches)


def test_the_cache_is_of_the_files_as_they_are(tmp_path: Path, recipe: Recipe, examples: list[Example]) -> None:
    cache = Cache(tmp_path / "cache", recipe)
    first = np.array(cache.get(examples[0]).image)
    assert np.array_equal(cache.get(examples[0]).image, first)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    write_nifti(examples[0].images[0], body(0)[0] + np.int16(50))
    assert not np.array_equal(cache.get(examples[0]).image, first)


def test_nothing_to_learn_from_is_said(tmp_path: Path, recipe: Recipe, examples: list[Example]) -> None:
    with pytest.raises(ValueError, match="nothing to learn from"):
        Crops(recipe, [], examples, tmp_path)

"""Runs of a few steps on tiny data, from the recipe to a bundle that the node can read."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.bundle import read_bundle
from training.anatomy import Anatomy, make_anatomy
from training.batches import Check, Draws, Part
from training.export import export
from training.mixture import Mixture
from training.ranks import Ranks
from training.recipe import Recipe, read_recipe
from training.slices import Slice
from training.train import Run, Trainer

ALONE = Ranks(0, 1, "cpu")
RECIPE = Path(__file__).parents[3] / "training" / "recipes" / "pancreas-3d.toml"


def changed(recipe: Recipe, **more: object) -> Recipe:
    """A recipe with other values, its tables too; checked again."""
    content = recipe.model_dump()
    for key, value in more.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return Recipe(**content)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    plain = {"name": "UNet", "spatial_dims": 3, "channels": [4, 8], "strides": [2], "dropout": 0.1, "num_res_units": 0}
    return changed(
        read_recipe(RECIPE),
        steps=4,
        validate_every=1,
        card={"patch": (8, 32, 32)},
        network=plain,
        data={"crop": (8, 32, 32), "repeats": 1, "synthetic_per_step": 1, "slices_per_step": 2, "slice_depths": (4, 8)},
        optimisation={"ema": 0.5, "precision": "float32"},  # the CPU rounds bfloat16 not always alike
    )


@pytest.fixture(scope="module")
def anatomies() -> list[Anatomy]:
    codes = torch.zeros(40, 70, 70, dtype=torch.uint8)
    codes[10:30, 20:50, 20:50] = 1
    return [make_anatomy(codes, "1 pancreas 1.0")]


@pytest.fixture(scope="module")
def slices() -> list[Slice]:
    mask = torch.zeros(40, 40)
    mask[10:20, 10:30] = 1
    return [Slice(patient, mask * 80 + 20, mask) for patient in ("0001", "0002", "0003")]


@pytest.fixture(scope="module")
def source(recipe: Recipe, anatomies: list[Anatomy], slices: list[Slice]) -> Mixture:
    return Mixture(recipe, anatomies, slices[:2], slices[2:])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_a_run_is_trained_resumed_exported_and_read(tmp_path: Path, recipe: Recipe, source: Mixture) -> None:
    Trainer(changed(recipe, steps=1), Run(tmp_path), source, ALONE).train()
    resumed = Trainer(changed(recipe, steps=2), Run(tmp_path), source, ALONE)
    before = [p.detach().clone() for p in resumed.network.parameters()]
    resumed.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, resumed.network.parameters(), strict=True))
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2"]
    assert {"dice_slices", "dice_synthetic", "loss", "learning_rate"} <= rows(tmp_path)[0].keys()
    assert Image.open(tmp_path / "curves.png").size[0] > 500
    assert [path.name for path in sorted((tmp_path / "previews").iterdir())] == [
        "step-0000001.png",
        "step-0000002.png",
    ]

    card = export(recipe, [tmp_path / "best.pt"], "9.9.9", tmp_path / "bundle")
    model = read_bundle(tmp_path / "bundle")
    assert model.card == card
    assert (card.name, card.version, card.target) == ("pancreas-3d", "9.9.9", 1)
    assert model.network(torch.zeros(1, 1, 8, 32, 32)).shape == (1, 8, 8, 32, 32)


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path, recipe: Recipe, source: Mixture) -> None:
    whole = Trainer(recipe, Run(tmp_path / "whole"), source, ALONE)
    whole.train()
    half = changed(recipe, validate_every=2)
    first = Trainer(half, Run(tmp_path / "half"), Cut(source, 2), ALONE)
    with pytest.raises(InterruptedError):
        first.train()
    second = Trainer(half, Run(tmp_path / "half"), source, ALONE)
    second.train()
    assert [row["step"] for row in rows(tmp_path / "half")] == ["2", "4"]
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)


class Cut:
    """A source that breaks off, as a killed process does."""

    def __init__(self, source: Mixture, steps: int) -> None:
        self._source, self._steps, self.steps_per_epoch = source, steps, 1

    def draw(self, step: int) -> Sequence[tuple[Part, ...]]:
        if step >= self._steps:
            raise InterruptedError
        return self._source.draw(step)

    def checks(self) -> Iterator[Check]:
        yield from self._source.checks()


def test_a_step_has_the_same_batch_in_every_run_and_each_rank_its_own(source: Mixture) -> None:
    first, again = (source.draw(5)[0] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    own, others = (next(iter(Draws(source, 2, rank, 2)))[0][0].images for rank in range(2))
    assert torch.equal(own, source.draw(4)[0][0].images)
    assert torch.equal(others, source.draw(5)[0][0].images)


def test_slices_come_in_every_depth_and_only_they_are_partial(source: Mixture) -> None:
    shapes = {draw[1].images.shape for draw in (source.draw(step)[0] for step in range(2))}
    assert shapes == {(2, 1, 4, 32, 32), (1, 1, 8, 32, 32)}
    assert [part.partial for part in source.draw(0)[0]] == [False, True]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_recipe_of_slices_alone_trains_in_either_precision(
    tmp_path: Path, recipe: Recipe, slices: list[Slice], precision: str
) -> None:
    flat = changed(
        recipe,
        steps=2,
        card={"patch": (1, 32, 32)},
        network={"spatial_dims": 2},
        data={"synthetic_per_step": 0, "slice_depths": (1,)},
        optimisation={"precision": precision},
    )
    Trainer(flat, Run(tmp_path), Mixture(flat, [], slices[:2], slices[2:]), ALONE).train()
    assert [float(row["loss"]) > 0 for row in rows(tmp_path)] == [True, True]

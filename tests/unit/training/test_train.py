"""A run of two steps on tiny data, from the recipe to a bundle that the node can read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.bundle import read_bundle
from training.data import Batches
from training.export import export
from training.losses import target_loss
from training.recipe import Recipe, read_recipe
from training.slices import Slice
from training.synthetic import Anatomy, make_anatomy
from training.train import Run, Trainer, dice

RECIPE = Path(__file__).parents[3] / "training" / "recipes" / "pancreas-3d.toml"
NETWORK = {"name": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 8, "channels": [4, 8], "strides": [2]}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return replace(
        read_recipe(RECIPE), patch=(8, 32, 32), network=NETWORK, held_out_patients=1, validate_every=1, repeats=1
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


def run(folder: Path, steps: int) -> Run:
    return Run(folder, minutes=10, steps=steps, seed=0, workers=0, device="cpu")


def test_a_run_is_trained_resumed_exported_and_read(
    tmp_path: Path, recipe: Recipe, anatomies: list[Anatomy], slices: list[Slice]
) -> None:
    Trainer(recipe, run(tmp_path, 1), anatomies, slices).train()
    resumed = Trainer(recipe, run(tmp_path, 2), anatomies, slices)
    before = [p.detach().clone() for p in resumed.network.parameters()]
    resumed.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, resumed.network.parameters(), strict=True))
    assert [line.split(",")[0] for line in (tmp_path / "log.csv").read_text().splitlines()] == ["1", "2"]

    card = export(recipe, tmp_path / "best.pt", "9.9.9", tmp_path / "bundle")
    model = read_bundle(tmp_path / "bundle")
    assert model.card == card
    assert (card.name, card.version, card.target) == ("pancreas-3d", "9.9.9", 1)
    assert model.network(torch.zeros(1, 1, 8, 32, 32)).shape == (1, 8, 8, 32, 32)


def test_a_step_has_the_same_batch_in_every_run(recipe: Recipe, anatomies: list[Anatomy], slices: list[Slice]) -> None:
    first, again = (Batches(recipe, anatomies, slices, 0).batch(5) for _ in range(2))
    assert torch.equal(first.synthetic, again.synthetic)
    assert torch.equal(first.slices, again.slices)


def test_the_loss_of_a_known_label_falls_when_it_is_found() -> None:
    mask = torch.zeros(1, 4, 8, 8, dtype=torch.int64)
    mask[0, 1:3, 2:6, 2:6] = 1
    right = torch.zeros(1, 3, 4, 8, 8)
    right[:, 1] = mask * 20.0 - 10
    assert float(target_loss(right, mask, 1)) < 0.05 < float(target_loss(-right, mask, 1))


def test_dice() -> None:
    one, other = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    assert dice(one, other) == pytest.approx(2 / 3)
    assert dice(one & False, one & False) == 1.0


def test_a_recipe_with_a_wrong_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.read_text().replace("overlap", "overlapp"))
    with pytest.raises(ValueError, match="overlapp"):
        read_recipe(path)

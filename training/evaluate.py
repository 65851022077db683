"""Judge a bundle on data it never saw: `python -m training.evaluate --bundle B --data DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from highdicom import VolumeGeometry

from models.bundle import Model, read_bundle
from pipeline.analyse import Options, segment
from pipeline.volume import Grid, Volume
from training.data import TEST_SEEDS, read_anatomies
from training.recipe import Recipe, read_recipe
from training.slices import read_slices, split_by_patient
from training.synthetic import COARSE_MM, Anatomy, synthesise
from training.train import SPLIT_SEED, TARGET, dice, slice_dice

_SHAPE = (80, 112, 128)  # 240 x 336 x 384 mm: larger than a window, so that the window slides


@dataclass(frozen=True)
class Case:
    """One synthetic case: Dice, true and measured volume."""

    seed: int
    dice: float
    true_ml: float
    found_ml: float


def judge_synthetic(model: Model, anatomies: list[Anatomy]) -> Iterator[Case]:
    """Unseen deformations through the path that a patient's series takes from its voxels on."""
    options = Options(at=datetime.now(UTC))
    for seed in TEST_SEEDS:
        sample = synthesise(anatomies[seed % len(anatomies)], _SHAPE, seed, elsewhere=0)
        affine = np.eye(4)
        # Slices to Superior, rows to Posterior, columns to Left, in LPS coordinates.
        affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * COARSE_MM
        geometry = VolumeGeometry(affine, _SHAPE, coordinate_system="PATIENT")
        hounsfield = sample.hounsfield.round().clamp(-1024, 3000).to(torch.int16).numpy()
        segmentation, measurement = segment(Volume(hounsfield, Grid(geometry)), model, options)
        truth = sample.labels == TARGET
        figure = dice(torch.from_numpy(segmentation.mask.copy()), truth)
        yield Case(seed, figure, float(truth.sum()) * COARSE_MM**3 / 1000, measurement.volume_ml)


def judge_slices(model: Model, recipe: Recipe, folder: Path) -> tuple[float, int, int]:
    """Mean in-plane Dice on held-out patients, with the number of slices and of patients."""
    _, held_out = split_by_patient(read_slices(folder), recipe.held_out_patients, SPLIT_SEED)
    network = model.network
    if not isinstance(network, torch.nn.Module):
        raise TypeError("slices are judged on a network, not on any callable")
    return slice_dice(network, recipe, held_out, "cpu"), len(held_out), len({item.patient for item in held_out})


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent / "recipes" / "pancreas-3d.toml")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with anatomies/ and nih-slices/")
    given = parser.parse_args()
    model, recipe = read_bundle(given.bundle), read_recipe(given.recipe)
    figure, count, patients = judge_slices(model, recipe, given.data / "nih-slices")
    print(f"real slices: mean in-plane Dice {figure:.3f} over {count} slices of {patients} held-out patients")
    cases = []
    for case in judge_synthetic(model, read_anatomies(given.data / "anatomies")):
        cases.append(case)
        print(
            f"synthetic {case.seed}: Dice {case.dice:.3f}, true {case.true_ml:.1f} mL, found {case.found_ml:.1f} mL",
            flush=True,
        )
    figures = np.array([case.dice for case in cases])
    errors = np.array([case.found_ml / case.true_ml - 1 for case in cases]) * 100
    zero = int((figures < 0.01).sum())
    print(
        f"Dice: mean {figures.mean():.3f}, median {np.median(figures):.3f}, least {figures.min():.3f}; zero in {zero}"
    )
    print(f"volume error: mean {errors.mean():+.1f} %, SD {errors.std(ddof=1):.1f} %")


if __name__ == "__main__":
    main()

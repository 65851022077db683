"""Batches for training: synthetic CT made on the fly, and real slices as thin pseudo-volumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from training.recipe import Recipe
from training.slices import Slice, pseudo_volume
from training.synthetic import Anatomy, Sample, read_anatomy, synthesise

_RIMS = (4, 10)  # a lean and a stout body of each, in 3 mm of fat around the organs
VALIDATION_SEEDS = range(1_000_000, 1_000_012)
TEST_SEEDS = range(2_000_000, 2_000_020)


def read_anatomies(folder: Path) -> list[Anatomy]:
    """Every `NAME_117.nii.gz` with its `NAME_names.txt`, lean and stout; raises ValueError where there is none."""
    maps = sorted(folder.glob("*_117.nii.gz"))
    if not maps:
        raise ValueError(f"{folder}: no label map *_117.nii.gz")
    return [
        read_anatomy(path, path.with_name(path.name.replace("_117.nii.gz", "_names.txt")), rim)
        for rim in _RIMS
        for path in maps
    ]


@dataclass(frozen=True)
class Batch:
    """Inputs are float32 0..1 (N, 1, S, R, C), labels and masks int64 (N, S, R, C).

    Of the slices there are as many as all repeats together need: fresh ones cost nothing.
    """

    synthetic: Tensor
    labels: Tensor
    slices: Tensor
    masks: Tensor


class Batches(IterableDataset[Batch]):
    """An endless stream of batches; a step's batch is always the same: a resumed run goes on as it would have."""

    def __init__(self, recipe: Recipe, anatomies: list[Anatomy], slices: list[Slice], first_step: int) -> None:
        self._recipe = recipe
        self._anatomies = anatomies
        self._slices = slices
        self._first_step = first_step

    def __iter__(self) -> Iterator[Batch]:
        info = torch.utils.data.get_worker_info()
        step, stride = self._first_step + (info.id if info else 0), info.num_workers if info else 1
        while True:
            yield self.batch(step)
            step += stride

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        recipe = self._recipe
        generator = torch.Generator().manual_seed(step)
        seeds = [step * 1000 % 900_000_007 + index for index in range(recipe.synthetic_per_step)]
        samples = [synthetic_sample(self._anatomies, recipe, seed) for seed in seeds]
        inputs = [_without_negative(scale(s.hounsfield, recipe), recipe, generator) for s in samples]
        shape = (recipe.slice_depth, *recipe.patch[1:])
        count = recipe.slices_per_step * recipe.repeats
        chosen = torch.randint(0, len(self._slices), (count,), generator=generator).tolist()
        thin = [pseudo_volume(self._slices[index], shape, step * 100 + at) for at, index in enumerate(chosen)]
        return Batch(
            torch.stack(inputs)[:, None],
            torch.stack([sample.labels for sample in samples]),
            torch.stack([scale(hounsfield, recipe) for hounsfield, _ in thin])[:, None],
            torch.stack([mask for _, mask in thin]),
        )


def loader(batches: Batches, workers: int) -> DataLoader[Batch]:
    """Batches made in processes of their own."""
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None)


def synthetic_sample(anatomies: list[Anatomy], recipe: Recipe, seed: int) -> Sample:
    """The sample of a seed; the anatomies take turns."""
    return synthesise(anatomies[seed % len(anatomies)], recipe.patch, seed)


def scale(hounsfield: Tensor, recipe: Recipe) -> Tensor:
    """HU to 0..1 by the recipe's window."""
    low, high = recipe.window_hu
    return ((hounsfield - low) / (high - low)).clamp(0, 1)


def _without_negative(scaled: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Now and then as the real slices are: nothing below 0 HU."""
    if torch.rand(1, generator=generator) >= 0.25:
        return scaled
    return scaled.clamp(min=float(scale(torch.zeros(1), recipe)))

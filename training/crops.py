"""Crops of labelled images on a model's grid, each image resampled once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.card import Card
from pipeline.preprocess import model_grid, resample, to_tensor
from training.augment import Augmentation
from training.batches import Check, Part
from training.datasets import read_example
from training.examples import Example, Labelled
from training.recipe import Examples, Recipe

_KNOWN_VOXELS = 10_000  # of the target, to draw the middle of a crop from


@dataclass(frozen=True, eq=False)
class Prepared:
    """An example on the model's grid. image: float16 (slice, row, column), scaled; labels: uint8; target: (n, 3)."""

    image: NDArray[np.float16]
    labels: NDArray[np.uint8]
    target: NDArray[np.int32]


class Cache:
    """Examples as the model sees them, resampled once and then mapped from disk, not read as a whole."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        if not isinstance(recipe.data, Examples):
            raise ValueError(f"{recipe.name}: its data are not examples on disk")
        self._folder, self._card, self._data = folder, recipe.to_card("0"), recipe.data

    def get(self, example: Example) -> Prepared:
        """The example, prepared if it is not yet; raises as `read_example` does."""
        folder = self._folder / self._key(example)
        if not folder.exists():
            self._prepare(example, folder)
        image, labels, target = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in Prepared.__annotations__)
        return Prepared(image, labels, target)

    def _key(self, example: Example) -> str:
        """Of the files as they are, and of all that decides what becomes of them."""
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in example.files]
        card = asdict(self._card)
        choices = [
            card[name] for name in ("orientation", "spacing_mm", "window_hu", "scaled_to", "convention", "target")
        ]
        content = json.dumps([files, choices, self._data.model_dump(exclude={"crop", "batch_size", "positive"})])
        return hashlib.sha256(content.encode()).hexdigest()[:24]

    def _prepare(self, example: Example, folder: Path) -> None:
        labelled = read_example(example, self._data.labels)
        labels = on_grid(labelled, self._card)
        target = np.argwhere(labels == self._card.target).astype(np.int32)
        if len(target) > _KNOWN_VOXELS:
            target = target[np.random.default_rng(0).choice(len(target), _KNOWN_VOXELS, replace=False)]
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._folder))
        np.save(partial / "image.npy", to_tensor(labelled.volume, self._card)[0, 0].numpy().astype(np.float16))
        np.save(partial / "labels.npy", labels)
        np.save(partial / "target.npy", target)
        try:
            partial.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(partial)


def on_grid(labelled: Labelled, card: Card) -> NDArray[np.uint8]:
    """Labels on the grid the model sees: of each voxel the label that fills most of it."""
    source, target = labelled.volume.grid, model_grid(labelled.volume.grid, card)
    best, labels = np.zeros(target.shape, np.float32), np.zeros(target.shape, np.uint8)
    for channel in np.unique(labelled.labels):
        mask = (labelled.labels == channel).astype(np.float32)
        share = resample(mask, source, target, outside=float(channel == 0), smooth=True)
        wins = share > best
        labels[wins], best[wins] = channel, share[wins]
    return labels


class Crops:
    """A source of crops around the target and elsewhere, changed at random; validation is of whole images."""

    def __init__(self, recipe: Recipe, training: Sequence[Example], validation: Sequence[Example], cache: Path) -> None:
        if not isinstance(recipe.data, Examples):
            raise ValueError(f"{recipe.name}: its data are not examples on disk")
        if not training:
            raise ValueError(f"{recipe.name}: nothing to learn from: every patient is held out")
        self._data, self._window = recipe.data, recipe.card.patch
        self._training, self._validation = training, validation
        self._cache, self._augment = Cache(cache, recipe), Augmentation(recipe.augment)
        self.steps_per_epoch = -(-len(training) // recipe.data.batch_size)

    def draw(self, step: int) -> list[tuple[Part, ...]]:
        """A batch; every example comes once in each epoch, in another order."""
        count = len(self._training)
        samples = []
        for place in range(step * self._data.batch_size, (step + 1) * self._data.batch_size):
            order = np.random.default_rng((0, place // count)).permutation(count)
            samples.append(self._sample(self._training[order[place % count]], place))
        images, labels = (torch.stack(column) for column in zip(*samples, strict=True))
        return [(Part(images[:, None], labels),)]

    def checks(self) -> Iterator[Check]:
        """The whole images of the patients kept apart, on the model's grid."""
        for example in self._validation:
            prepared = self._cache.get(example)
            image = torch.from_numpy(np.asarray(prepared.image, np.float32))
            yield Check(
                "examples", example.name, image, torch.from_numpy(prepared.labels.astype(np.int64)), self._window
            )

    def _sample(self, example: Example, seed: int) -> tuple[Tensor, Tensor]:
        prepared, random = self._cache.get(example), np.random.default_rng((1, seed))
        middle = random.integers(prepared.image.shape)
        if len(prepared.target) and random.random() < self._data.positive:
            middle = prepared.target[random.integers(len(prepared.target))]
        image = crop(prepared.image, middle, self._data.crop).astype(np.float32)
        labels = crop(prepared.labels, middle, self._data.crop).astype(np.int64)
        return self._augment(torch.from_numpy(image), torch.from_numpy(labels), seed)


def crop(array: NDArray[Any], middle: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """A crop around a voxel, moved to lie inside; where the array is smaller than the crop, 0 is put around it."""
    starts = [
        min(max(0, int(at) - size // 2), max(0, whole - size))
        for at, size, whole in zip(middle, shape, array.shape, strict=True)
    ]
    inside = array[tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))]
    missing = [size - have for size, have in zip(shape, inside.shape, strict=True)]
    return np.pad(inside, [(gap // 2, gap - gap // 2) for gap in missing])

"""Synthetic CT made on the fly beside real slices: the source of batches where no labelled volume exists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from training.anatomy import Anatomy
from training.batches import Check, Part
from training.recipe import Mixed, Recipe
from training.slices import Slice, pseudo_volume
from training.synthetic import Sample, synthesise
from training.tissues import LABELS

VALIDATION_SEEDS = range(1_000_000, 1_000_012)
TEST_SEEDS = range(2_000_000, 2_000_020)


class Mixture:
    """A source of synthetic CT, all labels known, and of real slices as thin pseudo-volumes, only the target known.

    Labels of synthetic CT that the recipe's model does not have are background. Raises ValueError where it has others.
    """

    def __init__(
        self, recipe: Recipe, anatomies: Sequence[Anatomy], training: Sequence[Slice], validation: Sequence[Slice]
    ) -> None:
        if not isinstance(recipe.data, Mixed):
            raise ValueError(f"{recipe.name}: its data are no mixture")
        first = {channel: LABELS.get(channel) for channel in range(len(recipe.card.labels))}
        if recipe.card.labels != first:
            raise ValueError(f"{recipe.name}: its labels are not the first of synthetic CT's, {LABELS}")
        self._recipe, self._data = recipe, recipe.data
        self._anatomies, self._training, self._validation = anatomies, training, validation
        # A patient of many slices is seen oftener than one of few, but not as much: their slices are alike.
        slices_of = Counter(item.patient for item in training)
        self._weights = torch.tensor([slices_of[item.patient] ** -0.5 for item in training])
        self.steps_per_epoch = max(1, len(training) // max(1, self._data.slices_per_step * self._data.repeats))

    def draw(self, step: int) -> list[tuple[Part, ...]]:
        """Synthetic CT of the step, as often as the recipe repeats it, each time beside other slices."""
        generator = torch.Generator().manual_seed(step)
        synthetic = self._synthetic(step, generator)
        return [(*synthetic, *self._slices(step, at, generator)) for at in range(self._data.repeats)]

    def checks(self) -> Iterator[Check]:
        """The slices of the patients kept apart, and synthetic CT of seeds that training never uses."""
        patch = self._recipe.card.patch
        for item in self._validation:
            image = self._scale(item.hounsfield)[None].expand(patch[0], -1, -1)
            mask = (item.mask > 0.5).long()[None].expand(patch[0], -1, -1)
            yield Check("slices", item.patient, image, mask, patch, patch[0] // 2)
        for seed in VALIDATION_SEEDS if self._data.synthetic_per_step else ():
            sample = self._sample(seed)
            yield Check("synthetic", str(seed), self._scale(sample.hounsfield), sample.labels, patch)

    def _synthetic(self, step: int, generator: torch.Generator) -> list[Part]:
        count = self._data.synthetic_per_step
        if not count:
            return []
        samples = [self._sample(step * 1000 % 900_000_007 + index) for index in range(count)]
        images = [self._without_negative(self._scale(sample.hounsfield), generator) for sample in samples]
        return [Part(torch.stack(images)[:, None], torch.stack([sample.labels for sample in samples]))]

    def _slices(self, step: int, at: int, generator: torch.Generator) -> list[Part]:
        depths = self._data.slice_depths
        depth = depths[(step * self._data.repeats + at) % len(depths)]
        count = -(-self._data.slices_per_step * depths[0] // depth)
        if not count:
            return []
        shape, voxel_mm = (depth, *self._data.crop[1:]), self._recipe.card.spacing_mm[1]
        chosen = torch.multinomial(self._weights, count, replacement=True, generator=generator).tolist()
        seed = (step * self._data.repeats + at) * 1000
        thin = [pseudo_volume(self._training[one], shape, seed + place, voxel_mm) for place, one in enumerate(chosen)]
        images = torch.stack([self._scale(hounsfield) for hounsfield, _ in thin])[:, None]
        return [Part(images, torch.stack([mask for _, mask in thin]), partial=True)]

    def _sample(self, seed: int) -> Sample:
        """The sample of a seed; the anatomies take turns."""
        anatomy = self._anatomies[seed % len(self._anatomies)]
        sample = synthesise(anatomy, self._data.crop, seed, spacing_mm=self._recipe.card.spacing_mm)
        known = torch.where(sample.labels < len(self._recipe.card.labels), sample.labels, 0)
        return Sample(sample.hounsfield, known)

    def _scale(self, hounsfield: Tensor) -> Tensor:
        """HU as the card scales them."""
        (low, high), (lowest, highest) = self._recipe.card.window_hu, self._recipe.card.scaled_to
        return lowest + ((hounsfield - low) / (high - low)).clamp(0, 1) * (highest - lowest)

    def _without_negative(self, scaled: Tensor, generator: torch.Generator) -> Tensor:
        """Now and then as the real slices are: nothing below 0 HU, lest the network tell the two kinds by their fat."""
        if torch.rand(1, generator=generator) >= 0.25:
            return scaled
        return scaled.clamp(min=float(self._scale(torch.zeros(1))))

"""What a network learns from and is validated on, wherever it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset


@dataclass(frozen=True)
class Part:
    """Images with labels. images: float32 (N, 1, slice, row, column), in the card's scale; labels: int64 (N, ...).

    partial: only the target was drawn; what is not target may be any other label.
    """

    images: Tensor
    labels: Tensor
    partial: bool = False


@dataclass(frozen=True)
class Check:
    """An image to validate on. image: float32 (slice, row, column); labels: int64, the same shape.

    group: figures are means of groups first. window: of the sliding window. plane: judged there alone, in two
    dimensions, where the image is one slice repeated; None: judged as a whole.
    """

    group: str
    name: str
    image: Tensor
    labels: Tensor
    window: tuple[int, int, int]
    plane: int | None = None


class Source(Protocol):
    """Where batches come from. steps_per_epoch: draws that go once through the training data."""

    steps_per_epoch: int

    def draw(self, step: int) -> Sequence[tuple[Part, ...]]:
        """What is learnt from at a step, one optimiser step after another; always the same for the same step."""
        ...

    def checks(self) -> Iterable[Check]:
        """What the network is validated on; never learnt from."""
        ...


class Draws(IterableDataset[Sequence[tuple[Part, ...]]]):
    """An endless stream of draws from a step on: a resumed run goes on as it would have."""

    def __init__(self, source: Source, first_step: int, rank: int = 0, ranks: int = 1) -> None:
        self._source, self._first_step, self._rank, self._ranks = source, first_step, rank, ranks

    def __iter__(self) -> Iterator[Sequence[tuple[Part, ...]]]:
        info = torch.utils.data.get_worker_info()
        step, stride = self._first_step + (info.id if info else 0), info.num_workers if info else 1
        while True:
            yield self._source.draw(step * self._ranks + self._rank)
            step += stride


def loader(draws: Draws, workers: int) -> DataLoader[Sequence[tuple[Part, ...]]]:
    """Draws made in processes of their own, in their order."""
    return DataLoader(draws, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)

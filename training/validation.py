"""How good a network is on what it never learns from, while it learns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from training.batches import Check


@dataclass(frozen=True)
class Seen:
    """One check's result, for the pictures. dice: of the target. found, truth, image: (slice, row, column)."""

    check: Check
    dice: float
    found: Tensor


@dataclass(frozen=True)
class Figures:
    """Mean Dice of each group, their mean as the figure that chooses, and the results that were asked to be kept."""

    groups: dict[str, float]
    kept: list[Seen]

    @property
    def mean(self) -> float:
        """Mean over the groups of their means."""
        return sum(self.groups.values()) / len(self.groups)


def dice(found: Tensor, truth: Tensor) -> float:
    """Dice of two masks; 1.0 where both are empty."""
    total = float(found.sum() + truth.sum())
    return 2 * float((found & truth).sum()) / total if total else 1.0


@torch.inference_mode()
def validate(
    network: nn.Module,
    checks: Iterable[Check],
    target: int,
    *,
    precision: AbstractContextManager[Any] | None = None,
    keep: int = 0,
    **window: Any,
) -> Figures:
    """Look at every check through sliding windows, as the pipeline looks at a patient.

    To see a large slice at once, with all its air, would shift what instance normalisation makes of it.
    precision: what the network computes in, such as `torch.autocast`. keep: of how many names of each group the first
    result is kept. window: more arguments of MONAI's `sliding_window_inference`.
    Raises ValueError where there is nothing to validate on.
    """
    network.eval()
    device = next(network.parameters()).device
    figures: dict[str, list[float]] = defaultdict(list)
    seen: list[Seen] = []
    for check in checks:
        image = check.image[None, None].to(device)
        with precision or nullcontext():  # of the network alone: the checks are made as they are read
            logits = sliding_window_inference(image, check.window, 1, network, mode="gaussian", **window)
        found = logits[0].float().argmax(0).cpu() == target
        at: Any = slice(None) if check.plane is None else check.plane
        figure = dice(found[at], check.labels[at] == target)
        figures[check.group].append(figure)
        alike = [one.check.name for one in seen if one.check.group == check.group]
        if len(alike) < keep and check.name not in alike:
            seen.append(Seen(check, figure, found))
    if not figures:
        raise ValueError("nothing to validate on: hold more patients out")
    return Figures({group: sum(values) / len(values) for group, values in figures.items()}, seen)

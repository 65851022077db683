"""Stand-ins that are honest about what they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.bundle import Model
from models.card import Card
from tests.phantom import ORGANS, PANCREAS

WINDOW_HU = (-200.0, 300.0)

CARD = Card(
    name="threshold",
    version="1",
    sha256="0" * 64,
    orientation="SPL",
    spacing_mm=(1.0, 1.0, 1.0),
    window_hu=WINDOW_HU,
    patch=(64, 96, 96),
    overlap=0.25,
    labels={0: "background", 1: "pancreas"},
    target=1,
    statement="Finds what is bright; for tests only.",
    minimum_slices=10,
)


def threshold_model(threshold_hu: float | None = None, **changes: Any) -> Model:
    """A model whose pancreas is what is brighter than `threshold_hu`, by default half-way between trunk and pancreas.

    changes: fields of its card.
    """
    card = replace(CARD, **changes)
    low, high = card.window_hu
    middle = (ORGANS[0].hounsfield + PANCREAS.hounsfield) / 2
    threshold = ((middle if threshold_hu is None else threshold_hu) - low) / (high - low)

    def network(windows: Tensor) -> Tensor:
        logit = 10 * (windows - threshold)
        logits = torch.zeros(windows.shape[0], len(card.labels), *windows.shape[2:], device=windows.device)
        logits[:, card.target] = logit[:, 0]
        return logits

    return Model(card, network)

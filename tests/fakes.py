"""Stand-ins that are honest about what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.bundle import Model, write_bundle
from models.card import Card
from models.networks import build
from tests.phantom import ORGANS, PANCREAS

WINDOW_HU = (-200.0, 300.0)
FLAT: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [1, 1],
    "strides": [1],
    "norm": None,
}

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
    threshold = scale(threshold_hu, card.window_hu or WINDOW_HU)

    def network(windows: Tensor) -> Tensor:
        logit = 10 * (windows - threshold)
        logits = torch.zeros(windows.shape[0], len(card.labels), *windows.shape[2:], device=windows.device)
        logits[:, card.target] = logit[:, 0]
        return logits

    return Model(card, network)


def scale(threshold_hu: float | None, window_hu: tuple[float, float] = WINDOW_HU) -> float:
    """HU as a network sees them; by default half-way between trunk and pancreas."""
    low, high = window_hu
    middle = (ORGANS[0].hounsfield + PANCREAS.hounsfield) / 2
    return ((middle if threshold_hu is None else threshold_hu) - low) / (high - low)


def flat_network(threshold_hu: float | None = None) -> nn.Module:
    """A real network of two axes that does what `threshold_model` does, but for a little blur within the slice."""
    network = build("UNet", FLAT).eval()
    down, _, up = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d))
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        down.weight[0, 0] = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.0]])
        up.weight[0, 1, 1, 1] = 10
        up.bias[1] = -10 * scale(threshold_hu)
    return network


def write_flat_bundle(folder: Path, threshold_hu: float | None = None, **changes: Any) -> Path:
    """A bundle of `flat_network`; changes: fields of its card."""
    card = replace(CARD, network="UNet", network_arguments=FLAT, patch=(8, 32, 32), spacing_mm=(4.0, 3.5, 3.5))
    write_bundle(folder, replace(card, **changes), flat_network(threshold_hu), "# For tests only\n")
    return folder

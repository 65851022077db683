"""The weights that a run left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_AVERAGE_PREFIX = "module."  # of torch's AveragedModel, beside its own counter


def read_weights(checkpoint: Path, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """The weights in `best.pt`, or in `last.pt`, of which the moving average is taken where the recipe keeps one."""
    state: dict[str, Any] = torch.load(checkpoint, map_location=device, weights_only=True)
    if average := state.get("average"):
        return {
            name.removeprefix(_AVERAGE_PREFIX): values
            for name, values in average.items()
            if name.startswith(_AVERAGE_PREFIX)
        }
    weights: dict[str, torch.Tensor] = state.get("network", state)
    return weights

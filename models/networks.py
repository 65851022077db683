"""The architectures by name, MONAI's and those of nnU-Net; channels-first tensors, three spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monai.networks.nets import AttentionUnet, DynUNet, SegResNet, UNet
from torch import nn

from models.unets import Folds

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "AttentionUnet": AttentionUnet,
    "DynUNet": DynUNet,
    "Folds": Folds,
    "SegResNet": SegResNet,
    "UNet": UNet,
}


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Make a network with fresh weights; raises ValueError for an unknown name or arguments that do not fit."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"network {name}: {error}") from None

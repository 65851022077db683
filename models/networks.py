"""The architectures by name, MONAI's and those of nnU-Net; channels-first tensors, three spatial axes.

A network of two spatial axes looks at a window slice by slice, so that to the rest it is as one of three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.networks.nets import (
    UNETR,
    AttentionUnet,
    BasicUNetPlusPlus,
    DynUNet,
    FlexibleUNet,
    SegResNet,
    SwinUNETR,
    UNet,
)
from torch import Tensor, nn

from models.dilated import DilatedUNet
from models.dints import FoundDiNTS
from models.lite_unet import LiteUNet
from models.unets import Folds


class UNetPlusPlus(BasicUNetPlusPlus):
    """MONAI's, with the logits themselves in the place of a list of them."""

    def forward(self, image: Tensor) -> Tensor:
        """Logits of an image."""
        logits: Tensor = super().forward(image)[-1]
        return logits


NETWORKS: dict[str, type[nn.Module]] = {
    "AttentionUnet": AttentionUnet,
    "DilatedUNet": DilatedUNet,
    "DiNTS": FoundDiNTS,
    "DynUNet": DynUNet,
    "FlexibleUNet": FlexibleUNet,
    "Folds": Folds,
    "LiteUNet": LiteUNet,
    "SegResNet": SegResNet,
    "SwinUNETR": SwinUNETR,
    "UNETR": UNETR,
    "UNet": UNet,
    "UNetPlusPlus": UNetPlusPlus,
}


class SliceBySlice(nn.Module):
    """Put before a network of two spatial axes as a base class, it runs every slice of a window on its own.

    As a base class, because the names of the weights then stay those of the plain network.
    """

    def forward(self, windows: Tensor) -> Tensor:
        """Logits (N, label, slice, row, column) of windows (N, 1, slice, row, column)."""
        slices = windows.movedim(2, 1)
        logits: Tensor = super().forward(slices.flatten(0, 1))
        return logits.unflatten(0, slices.shape[:2]).movedim(1, 2)


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Make a network with fresh weights; where its `spatial_dims` is 2, it goes slice by slice.

    Raises ValueError for an unknown name or arguments that do not fit.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(NETWORKS)}")
    network = NETWORKS[name]
    if arguments.get("spatial_dims") == 2:
        network = type(f"{name}SliceBySlice", (SliceBySlice, network), {})
    try:
        return network(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"network {name}: {error}") from None

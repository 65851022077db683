"""A U-Net on EfficientNet-Lite0 that sees slices alone, or, inflated, each slice beside its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional as nn_functional

from models.efficientnet import EfficientNetLite0


class LiteUNet(nn.Module):
    """Maps (N, in_channels, ...) to logits (N, out_channels, ...); rows and columns must be multiples of 32.

    In three dimensions slices are never merged: the encoder takes each for itself, and the decoder looks one slice to
    either side at each level. So it suits slices of any thickness, and `inflate` makes it out of a 2-D one.
    decoder_channels: of each level, from the coarsest.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        decoder_channels: Sequence[int] = (128, 64, 48, 32, 24),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self._is_flat = spatial_dims == 2
        self.encoder = EfficientNetLite0(spatial_dims, in_channels, flat=True)
        *fine, coarse = EfficientNetLite0.num_channels_per_output()[0]
        skips, below = [*reversed(fine), 0], [coarse, *decoder_channels]
        self.decoder = nn.ModuleList(
            _block(spatial_dims, before + skip, after, dropout)
            for before, skip, after in zip(below[:-1], skips, decoder_channels, strict=True)
        )
        self.head = Convolution(spatial_dims, decoder_channels[-1], out_channels, kernel_size=1, conv_only=True)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of an image or a volume."""
        features, *skips = reversed(self.encoder(image))
        factor = 2.0 if self._is_flat else (1.0, 2.0, 2.0)
        for block, skip in zip(self.decoder, [*skips, None], strict=True):
            features = nn_functional.interpolate(features, scale_factor=factor, mode="nearest")
            features = block(features if skip is None else torch.cat([features, skip], 1))
        logits: Tensor = self.head(features)
        return logits


def _block(dims: int, before: int, after: int, dropout: float) -> nn.Module:
    near = 3 if dims == 2 else (1, 3, 3)
    more = {"act": "RELU", "norm": "BATCH", "adn_ordering": "NAD", "dropout": dropout or None, "bias": False}
    return nn.Sequential(
        Convolution(dims, before, after, kernel_size=3, **more),
        Convolution(dims, after, after, kernel_size=near, **more),
    )


def inflate(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights of a 2-D network into the same network in three dimensions, or in two.

    Each filter becomes the middle plane of its inflated one and the other planes are 0: at first the network does with
    every slice of a volume what the 2-D network did. Raises ValueError where names or shapes differ.
    """
    wanted = network.state_dict()
    if wanted.keys() != weights.keys():
        raise ValueError(f"weights lack or exceed {', '.join(sorted(wanted.keys() ^ weights.keys())[:3])}")
    network.load_state_dict({name: _inflated(weights[name], wanted[name], name) for name in wanted})


def _inflated(tensor: Tensor, wanted: Tensor, name: str) -> Tensor:
    if (
        wanted.dim() == tensor.dim() + 1
        and wanted.shape[:2] == tensor.shape[:2]
        and wanted.shape[3:] == tensor.shape[2:]
    ):
        inflated = torch.zeros_like(wanted)
        inflated[:, :, wanted.shape[2] // 2] = tensor
        return inflated
    if wanted.shape != tensor.shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, the network needs {tuple(wanted.shape)}")
    return tensor

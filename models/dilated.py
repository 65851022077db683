"""A deep U-Net with a wide first kernel and dilated convolutions, for small structures in large single slices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn


class DilatedUNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) whose every second convolution is dilated (Yu and Koltun 2016).

    channels: of each level, from the finest; each level halves the image, whose sides must be multiples of
    2 ** (len(channels) - 1). first_kernel_size: of the very first convolution. Maps (N, in_channels, ...) to logits
    (N, out_channels, ...).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        *,
        first_kernel_size: int = 9,
        dilation: int = 3,
    ) -> None:
        super().__init__()
        down = [in_channels, *channels]
        kernels = [first_kernel_size, *(3 for _ in channels[1:])]
        self.down = nn.ModuleList(
            _block(spatial_dims, before, after, kernel, dilation)
            for before, after, kernel in zip(down[:-1], channels, kernels, strict=True)
        )
        self.up = nn.ModuleList(
            _block(spatial_dims, deep + fine, fine, 3, dilation) for fine, deep in pairwise(channels)
        )
        self.shrink = (nn.MaxPool2d if spatial_dims == 2 else nn.MaxPool3d)(2)
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = Convolution(spatial_dims, channels[0], out_channels, kernel_size=1, conv_only=True)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of an image."""
        levels = [self.down[0](image)]
        for block in self.down[1:]:
            levels.append(block(self.shrink(levels[-1])))
        features = levels.pop()
        for block in reversed(self.up):
            features = block(torch.cat([levels.pop(), self.grow(features)], 1))
        logits: Tensor = self.head(features)
        return logits


def _block(dims: int, before: int, after: int, kernel: int, dilation: int) -> nn.Module:
    more = {"act": "RELU", "norm": "INSTANCE", "adn_ordering": "NA"}
    return nn.Sequential(
        Convolution(dims, before, after, kernel_size=kernel, **more),
        Convolution(dims, after, after, kernel_size=3, dilation=dilation, **more),
    )

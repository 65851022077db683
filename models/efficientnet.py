"""EfficientNet-Lite0 as an encoder of MONAI's FlexibleUNet, in two dimensions or, inflated, in three."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from monai.networks.blocks import BaseEncoder
from monai.networks.layers.factories import Conv, Norm
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import Tensor, nn
from torch.nn import functional as nn_functional

_STEM = 32
# Repeats, kernel size, stride, expansion, channels of each stage (Tan and Le 2019, table 1; Lite: no squeeze and
# excitation, ReLU6, the stem as wide as ever).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_TAPPED = (0, 1, 2, 4, 6)  # stages after which a feature map is handed to the decoder: at 1/2, 1/4 ... 1/32


@dataclass(frozen=True)
class _Kind:
    """dims: spatial axes. flat: along the first of three nothing is mixed."""

    dims: int
    flat: bool

    def sizes(self, size: int, across: int) -> tuple[int, ...]:
        """A size for each axis; across: along the slices, where they are apart."""
        return (across if self.flat and self.dims == 3 else size, *(size for _ in range(self.dims - 1)))


class EfficientNetLite0(nn.Module, BaseEncoder):
    """Maps an image (N, in_channels, ...) to five feature maps, each half as large as the one before.

    flat: of a volume, every slice for itself; the feature maps then have as many slices as the volume.
    """

    def __init__(
        self, spatial_dims: int = 2, in_channels: int = 3, pretrained: bool = False, *, flat: bool = False
    ) -> None:
        if pretrained:
            raise ValueError("weights are put into it by `load_imagenet`, not fetched")
        super().__init__()
        kind = _Kind(spatial_dims, flat)
        self.stem = nn.Sequential(*_convolution(kind, in_channels, _STEM, 3, stride=2))
        widths = [_STEM, *(channels for *_, channels in _STAGES)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    _Block(
                        kind,
                        before if at == 0 else after,
                        after,
                        kernel,
                        stride=stride if at == 0 else 1,
                        expansion=expansion,
                    )
                    for at in range(repeats)
                )
            )
            for (before, after), (repeats, kernel, stride, expansion, _) in zip(pairwise(widths), _STAGES, strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature maps, the finest first."""
        features, tapped = self.stem(image), []
        for at, stage in enumerate(self.stages):
            features = stage(features)
            if at in _TAPPED:
                tapped.append(features)
        return tapped

    @classmethod
    def get_encoder_parameters(cls) -> list[dict[str, Any]]:
        """What FlexibleUNet fills in."""
        return [{"spatial_dims": 2, "in_channels": 3, "pretrained": False}]

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        """Of each feature map."""
        return [tuple(_STAGES[at][-1] for at in _TAPPED)]

    @classmethod
    def num_outputs(cls) -> list[int]:
        """How many feature maps there are."""
        return [len(_TAPPED)]

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        """By which FlexibleUNet knows it."""
        return ["efficientnet-lite0"]


class _Block(nn.Module):
    """Mobile inverted bottleneck: widen, filter each channel, narrow; the input is added where shapes agree."""

    def __init__(self, kind: _Kind, before: int, after: int, kernel: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        widen = _convolution(kind, before, wide, 1) if expansion > 1 else []
        filtering = _convolution(kind, wide, wide, kernel, stride=stride, groups=wide)
        self.layers = nn.Sequential(*widen, *filtering, *_convolution(kind, wide, after, 1)[:-1])
        self._adds = stride == 1 and before == after

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.layers(features)
        return changed + features if self._adds else changed


class _SamePadding(nn.Module):
    """TensorFlow's padding for a stride of 2: one more behind than in front; the weights were trained so."""

    def __init__(self, kind: _Kind, kernel: int) -> None:
        super().__init__()
        front = (kernel - 2) // 2
        self._margins = (front, kernel - 2 - front) * (2 if kind.flat else kind.dims)

    def forward(self, features: Tensor) -> Tensor:
        return nn_functional.pad(features, self._margins)


def _convolution(
    kind: _Kind, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    padding = [] if stride == 1 else [_SamePadding(kind, kernel)]
    margin = kind.sizes(0 if padding else kernel // 2, 0)
    sizes = kind.sizes(kernel, 1), kind.sizes(stride, 1), margin
    convolution = Conv[Conv.CONV, kind.dims](before, after, *sizes, groups=groups, bias=False)
    return [*padding, convolution, Norm[Norm.BATCH, kind.dims](after, eps=1e-3, momentum=0.01), nn.ReLU6(inplace=True)]


def load_imagenet(encoder: EfficientNetLite0, weights: Mapping[str, Tensor]) -> None:
    """Put weights of the published 2-D RGB network into an encoder; raises ValueError where they do not fit.

    weights: a state of PyTorch's EfficientNet-Lite0, whose layers come in the same order. For fewer channels the
    stem's filters are summed over red, green and blue. In three dimensions each filter is repeated along the slices
    and divided by their number, so that a volume of equal slices gives what the slice gives (Carreira and Zisserman
    2017, "inflation").
    """
    head = ("_conv_head.", "_bn1.", "_fc.")
    given = [tensor for name, tensor in weights.items() if not name.startswith(head)]
    wanted = encoder.state_dict()
    if len(given) != len(wanted):
        raise ValueError(f"{len(given)} tensors where the encoder has {len(wanted)}")
    fitted = {name: _fit(tensor, wanted[name], name) for tensor, name in zip(given, wanted, strict=True)}
    encoder.load_state_dict(fitted)


def _fit(tensor: Tensor, wanted: Tensor, name: str) -> Tensor:
    if tensor.dim() >= 4 and tensor.shape[1] == 3 and wanted.shape[1] != 3:
        tensor = tensor.sum(1, keepdim=True).expand(-1, wanted.shape[1], -1, -1) / wanted.shape[1]
    if wanted.dim() == 5 and tensor.dim() == 4:
        depth = wanted.shape[2]
        tensor = tensor[:, :, None].expand(-1, -1, depth, -1, -1) / depth
    if tensor.shape != wanted.shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, the encoder needs {tuple(wanted.shape)}")
    return tensor.clone().to(torch.float32) if tensor.is_floating_point() else tensor.clone()


FLEXUNET_BACKBONE.register_class(EfficientNetLite0)

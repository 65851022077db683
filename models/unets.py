"""The two networks that nnU-Net v2 trains, with the names of its parameters, and several of them as one.

The architectures are those of dynamic-network-architectures (Apache-2.0; Isensee et al., "nnU-Net Revisited", 2024),
written anew for inference on three spatial axes: that package asks for timm and torchvision, which nothing here needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"LeakyReLU": nn.LeakyReLU, "ReLU": nn.ReLU}
_Axes = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What both networks are built from; a value per stage, from the full resolution down.

    input_channels, num_classes: of the image and of the logits. features, kernels, strides: of the encoder; a kernel or
    stride has three entries. blocks: convolutions, or residual blocks, of each stage of the encoder. decoder_blocks:
    convolutions of each stage of the decoder, from the lowest up, one fewer. bias: of the convolutions. norm: arguments
    of the instance normalisation. activation, activation_arguments: a name in `ACTIVATIONS` and its arguments.
    """

    input_channels: int
    num_classes: int
    features: Sequence[int]
    kernels: Sequence[_Axes]
    strides: Sequence[_Axes]
    blocks: Sequence[int]
    decoder_blocks: Sequence[int]
    bias: bool = False
    norm: Mapping[str, Any]
    activation: str = "LeakyReLU"
    activation_arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        stages = {len(self.features), len(self.kernels), len(self.strides), len(self.blocks)}
        if stages != {len(self.decoder_blocks) + 1} or len(self.features) < 2:
            raise ValueError("features, kernels, strides and blocks need one entry per stage, decoder_blocks one fewer")
        if any(len(axes) != 3 for axes in (*self.kernels, *self.strides)):
            raise ValueError("a kernel or stride needs three axes")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; known are {', '.join(ACTIVATIONS)}")

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """From JSON's types; raises ValueError or TypeError where they do not fit."""
        return cls(**{"norm": {}, "activation_arguments": {}} | dict(arguments))

    def act(self) -> nn.Module:
        """A fresh activation."""
        return ACTIVATIONS[self.activation](**self.activation_arguments)


class _Convolution(nn.Module):
    """Convolution, instance normalisation, and an activation where `act`."""

    def __init__(
        self, plan: Plan, channels: tuple[int, int], kernel: _Axes, stride: _Axes, *, act: bool = True
    ) -> None:
        super().__init__()
        before, after = channels
        padding = tuple((size - 1) // 2 for size in kernel)
        self.conv = nn.Conv3d(before, after, tuple(kernel), tuple(stride), padding, bias=plan.bias)  # type: ignore[arg-type]
        self.norm = nn.InstanceNorm3d(after, **plan.norm)
        self.act = plan.act() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.norm(self.conv(x)))
        return result


class _Stack(nn.Module):
    """Convolutions one after another; the first may change the number of channels and the resolution."""

    def __init__(self, plan: Plan, count: int, channels: tuple[int, int], kernel: _Axes, stride: _Axes) -> None:
        super().__init__()
        rest = ((channels[1], channels[1]) for _ in range(count - 1))
        first = _Convolution(plan, channels, kernel, stride)
        self.convs = nn.Sequential(first, *(_Convolution(plan, same, kernel, (1, 1, 1)) for same in rest))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.convs(x)
        return result


class _Residual(nn.Module):
    """A basic block of ResNet-D (He et al., "Bag of Tricks", 2019): the shortcut is pooled, then projected."""

    def __init__(self, plan: Plan, channels: tuple[int, int], kernel: _Axes, stride: _Axes) -> None:
        super().__init__()
        before, after = channels
        self.conv1 = _Convolution(plan, channels, kernel, stride)
        self.conv2 = _Convolution(plan, (after, after), kernel, (1, 1, 1), act=False)
        self.act = plan.act()
        shortcut: list[nn.Module] = []
        if any(step != 1 for step in stride):
            shortcut.append(nn.AvgPool3d(tuple(stride), tuple(stride)))  # type: ignore[arg-type]
        if before != after:
            projection = _Convolution(plan, channels, (1, 1, 1), (1, 1, 1), act=False)
            projection.conv = nn.Conv3d(before, after, 1, bias=False)
            shortcut.append(projection)
        self.skip = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.conv2(self.conv1(x)) + self.skip(x))
        return result


class _ResidualStack(nn.Module):
    def __init__(self, plan: Plan, count: int, channels: tuple[int, int], kernel: _Axes, stride: _Axes) -> None:
        super().__init__()
        rest = ((channels[1], channels[1]) for _ in range(count - 1))
        first = _Residual(plan, channels, kernel, stride)
        self.blocks = nn.Sequential(first, *(_Residual(plan, same, kernel, (1, 1, 1)) for same in rest))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.blocks(x)
        return result


class _Encoder(nn.Module):
    def __init__(self, plan: Plan, *, residual: bool) -> None:
        super().__init__()
        before = [plan.features[0] if residual else plan.input_channels, *plan.features]
        self.stem = nn.Identity()
        if residual:
            channels = (plan.input_channels, plan.features[0])
            self.stem = _Stack(plan, 1, channels, plan.kernels[0], (1, 1, 1))  # type: ignore[assignment]
        stages: list[nn.Module] = []
        for stage, count in enumerate(plan.blocks):
            make = _ResidualStack if residual else _Stack
            made = make(plan, count, (before[stage], before[stage + 1]), plan.kernels[stage], plan.strides[stage])
            stages.append(made if residual else nn.Sequential(made))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        return [x := stage(x) for stage in self.stages]


class _Decoder(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        below, skips = plan.features[:0:-1], plan.features[-2::-1]
        strides, kernels = plan.strides[:0:-1], plan.kernels[-2::-1]
        self.transpconvs = nn.ModuleList(
            nn.ConvTranspose3d(low, skip, tuple(stride), tuple(stride), bias=plan.bias)  # type: ignore[arg-type]
            for low, skip, stride in zip(below, skips, strides, strict=True)
        )
        self.stages = nn.ModuleList(
            _Stack(plan, count, (2 * skip, skip), kernel, (1, 1, 1))
            for count, skip, kernel in zip(plan.decoder_blocks, skips, kernels, strict=True)
        )
        # The heads of the other stages served training alone (deep supervision); theirs keep their place in the list.
        others = (nn.Identity() for _ in range(len(skips) - 1))
        self.seg_layers = nn.ModuleList([*others, nn.Conv3d(skips[-1], plan.num_classes, 1)])

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels.pop()
        for up, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat((up(x), levels.pop()), 1))
        result: Tensor = self.seg_layers[-1](x)
        return result


class _UNet(nn.Module):
    def __init__(self, arguments: Mapping[str, Any], *, residual: bool) -> None:
        super().__init__()
        plan = Plan.of(arguments)
        self.encoder = _Encoder(plan, residual=residual)
        self.decoder = _Decoder(plan)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.decoder(self.encoder(x))
        return result


class PlainConvUNet(_UNet):
    """A U-Net of plain convolutions; arguments: those of `Plan`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(arguments, residual=False)


class ResidualEncoderUNet(_UNet):
    """A U-Net whose encoder is residual; arguments: those of `Plan`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(arguments, residual=True)


ARCHITECTURES: dict[str, type[_UNet]] = {"PlainConvUNet": PlainConvUNet, "ResidualEncoderUNet": ResidualEncoderUNet}


class Folds(nn.Module):
    """Networks of one architecture, trained on different folds, as one: the mean of their logits.

    architecture: a name in `ARCHITECTURES`. arguments: of one network. members: how many. mirror_axes: 0, 1, 2 for
    slice, row, column; the logits are also averaged over all ways to mirror the image along some of them, each of which
    takes as long as the image itself. channel: of a network whose channels are not exclusive (nnU-Net's regions), the
    one whose logit stands against a background of 0; None where all channels are exclusive labels.
    """

    def __init__(
        self,
        architecture: str,
        arguments: Mapping[str, Any],
        members: int = 1,
        *,
        mirror_axes: Sequence[int] = (),
        channel: int | None = None,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
        if members < 1:
            raise ValueError("a network needs one member or more")
        self.members = nn.ModuleList(ARCHITECTURES[architecture](**arguments) for _ in range(members))
        axes = [2 + axis for axis in mirror_axes]
        self._flips = [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]
        self._channel = channel

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32; on an accelerator computed in half precision where nnU-Net does."""
        with torch.autocast(x.device.type, enabled=x.device.type == "cuda"):
            logits = self._mirrored(self.members[0], x).float()
            for member in self.members[1:]:
                logits += self._mirrored(member, x)
        if (count := len(self.members) * len(self._flips)) > 1:
            logits /= count
        if self._channel is None:
            return logits
        region = logits[:, self._channel : self._channel + 1]
        return torch.cat((torch.zeros_like(region), region), 1)

    def _mirrored(self, member: nn.Module, x: Tensor) -> Tensor:
        """The sum over all ways to mirror."""
        total: Tensor = member(x)
        for flip in self._flips[1:]:
            total += member(x.flip(flip)).flip(flip)
        return total

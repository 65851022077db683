"""Random changes of images and labels: MONAI's transforms by name, seeded for each sample."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from monai import transforms
from torch import Tensor

from training.recipe import Named

SPATIAL = ("RandFlipd", "RandRotate90d", "RandAffined", "Rand2DElasticd", "Rand3DElasticd")
INTENSITY = (
    "RandGaussianNoised",
    "RandGaussianSmoothd",
    "RandGaussianSharpend",
    "RandScaleIntensityd",
    "RandShiftIntensityd",
    "RandAdjustContrastd",
    "RandSimulateLowResolutiond",
    "RandCoarseDropoutd",
    "RandHistogramShiftd",
)


class Augmentation:
    """A recipe's transforms in their order; raises ValueError for an unknown one or arguments that do not fit."""

    def __init__(self, named: Sequence[Named]) -> None:
        self._compose = transforms.Compose([_transform(one) for one in named])
        self._is_empty = not named

    def __call__(self, image: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Changed image and labels, both (slice, row, column); a single slice is changed in its plane."""
        if self._is_empty:
            return image, labels
        # Channel first: of a single slice its only plane serves as the channel.
        flat = len(image) == 1
        sample = {"image": image, "label": labels.float()}
        self._compose.set_random_state(seed=seed % 2**32)
        changed = self._compose(sample if flat else {key: value[None] for key, value in sample.items()})
        image, labels = (changed[key].as_subclass(Tensor) for key in ("image", "label"))
        if not flat:
            image, labels = image[0], labels[0]
        return image.float().contiguous(), labels.round().long().contiguous()


def _transform(named: Named) -> Any:
    if named.name not in (*SPATIAL, *INTENSITY):
        raise ValueError(f"unknown transform {named.name!r}; known are {', '.join((*SPATIAL, *INTENSITY))}")
    kind = getattr(transforms, named.name)
    arguments = dict(named.arguments)
    keys = ["image", "label"] if named.name in SPATIAL else ["image"]
    accepted = inspect.signature(kind).parameters
    if named.name in SPATIAL and "mode" in accepted:
        arguments.setdefault("mode", ["bilinear", "nearest"])
    if named.name in SPATIAL and "padding_mode" in accepted:
        arguments.setdefault("padding_mode", "zeros")
    try:
        return kind(keys=keys, **arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"transform {named.name}: {error}") from None

"""Single axial slices with manual masks, deformed and repeated to thin pseudo-volumes.

Tensors are slice, row, column in orientation SPL.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as nn_functional

from training.datasets import find_examples, read_example
from training.examples import PIXEL_MM
from training.pictures import PICTURES

_OFF_CENTRE_MM = 30.0
_BEND_MM = 8.0
_TISSUE_HU = 20
_WHITE_HU = 255


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice. hounsfield: float32 (row, column), as pictures have it never below 0; mask: float32, 0..1."""

    patient: str
    hounsfield: Tensor
    mask: Tensor


def read_slices(folder: Path, pixel_mm: float = 3.0) -> list[Slice]:
    """Every pair of a folder at a pixel size; raises as `find_examples` and `read_example` do."""
    return [
        Slice(example.patient, _resized(labelled.volume.hounsfield, pixel_mm), _resized(labelled.labels, pixel_mm))
        for example in find_examples(folder, PICTURES)
        for labelled in [read_example(example, {"pancreas": 1})]
    ]


def _resized(plane: NDArray[Any], pixel_mm: float) -> Tensor:
    picture = torch.from_numpy(plane.astype(np.float32))[None]
    scale = PIXEL_MM / pixel_mm
    return nn_functional.interpolate(picture, scale_factor=scale, mode="bilinear", antialias=True)[0, 0]


def pseudo_volume(item: Slice, shape: tuple[int, int, int], seed: int, voxel_mm: float = 3.0) -> tuple[Tensor, Tensor]:
    """HU and mask (slice, row, column) of a deformed crop near the middle of the body, repeated by slices.

    In half of those of several slices the deformation drifts from slice to slice, as organs do. voxel_mm: the pixel
    size that the slice was read at.
    """
    generator = torch.Generator().manual_seed(seed)
    planes = torch.stack([item.hounsfield, item.mask])[None]
    centre = _middle(item.hounsfield) + _uniform(generator, -_OFF_CENTRE_MM, _OFF_CENTRE_MM, 2) / voxel_mm
    points = _deformed(shape[1:], voxel_mm, generator) + centre
    along = torch.linspace(-1, 1, shape[0])[:, None, None, None] if shape[0] > 1 else torch.zeros(1, 1, 1, 1)
    drift = 2 * _bend(shape[1:], voxel_mm, generator) * (torch.rand(1, generator=generator) < 0.5)
    points = (points + along * drift) / (torch.tensor(planes.shape[2:]) - 1) * 2 - 1
    # Beyond the picture is what the picture has for air, 0.
    crops = nn_functional.grid_sample(planes.expand(shape[0], -1, -1, -1), points.flip(-1), align_corners=True)
    return _change_scanner(crops[:, 0], generator), (crops[:, 1] > 0.5).long()


def _middle(hounsfield: Tensor) -> Tensor:
    """Row and column of the middle of what is not air or fat."""
    body = (hounsfield > _TISSUE_HU).float()
    bounds = []
    for profile in (body.sum(1), body.sum(0)):
        share = profile.cumsum(0) / profile.sum().clamp(min=1)
        bounds.append(((share < 0.02).sum() + (share < 0.98).sum()) / 2)
    return torch.stack(bounds)


def _deformed(shape: tuple[int, ...], voxel_mm: float, generator: torch.Generator) -> Tensor:
    """Offsets (row, column, 2) from the centre in voxels: scaled, along one axis a little more, turned, bent."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape), indexing="ij")
    scale = _uniform(generator, -0.3, 0.3, 1).exp() * _uniform(generator, -0.1, 0.1, 2).exp()
    angle = _uniform(generator, -0.26, 0.26, 1)
    turn = torch.stack([torch.cat([angle.cos(), -angle.sin()]), torch.cat([angle.sin(), angle.cos()])])
    return (torch.stack(axes, -1) * scale) @ turn + _bend(shape, voxel_mm, generator)


def _bend(shape: tuple[int, ...], voxel_mm: float, generator: torch.Generator) -> Tensor:
    """A smooth field of offsets (row, column, 2) in voxels, coarse and fine."""
    bend = torch.zeros(*shape, 2)
    for cells, most_mm in (((5, 6), _BEND_MM), ((9, 11), 0.3 * _BEND_MM)):
        coarse = torch.randn(1, 2, *cells, generator=generator) * _uniform(generator, 0, most_mm, 1) / voxel_mm
        bend += nn_functional.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    return bend


def _change_scanner(hounsfield: Tensor, generator: torch.Generator) -> Tensor:
    """Other contrast, enhancement, kernel and noise, a hole now and then; HU 0..255, shape (slice, row, column).

    Noise and holes are alike in all slices or not.
    """
    planes = (hounsfield[:, None] - 90) * _uniform(generator, -0.3, 0.3, 1).exp() + 90
    planes = (planes + 15 * torch.randn(1, generator=generator)).clamp(0, _WHITE_HU) / _WHITE_HU
    planes = planes ** _uniform(generator, -0.25, 0.25, 1).exp()
    if torch.rand(1, generator=generator) < 0.5:  # softer or sharper
        soft = nn_functional.avg_pool2d(planes, 3, 1, 1)
        planes = planes + (soft - planes) * _uniform(generator, -0.8, 0.8, 1)
    count = len(planes) if torch.rand(1, generator=generator) < 0.5 else 1
    white = torch.randn(count, *planes.shape[1:], generator=generator)
    coarse = nn_functional.avg_pool2d(white, 3, 1, 1)
    planes = planes + white * _uniform(generator, 0, 0.05, 1) + coarse * _uniform(generator, 0, 0.08, 1)
    planes = planes.clamp(0, 1)
    if torch.rand(1, generator=generator) < 0.3:
        size = torch.tensor(planes.shape[2:])
        rows, columns = (_uniform(generator, 0.08, 0.3, 2) * size).int().tolist()
        row, column = (torch.rand(2, generator=generator) * size).int().tolist()
        planes[..., row : row + rows, column : column + columns] = torch.rand(1, generator=generator) * 0.5
    return planes[:, 0] * _WHITE_HU


def _uniform(generator: torch.Generator, low: float, high: float, count: int) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)

"""Folders of picture pairs: axial slices and their manual masks, as thin pseudo-volumes.

As the 2-D set of NIH Pancreas-CT comes: `images/PANCREAS_pppp-1sss.jpg` and `masks/` of the same name, grey level = HU
clipped to 0..255, stored with anterior at the bottom. Tensors are slice, row, column in orientation SPL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as nn_functional

from training.examples import PIXEL_MM

_NAME = re.compile(r"PANCREAS_(\d{4})-\d{4}")


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice at about 3 mm. hounsfield: float32 (row, column), never below 0; mask: float32, 0..1."""

    patient: str
    hounsfield: Tensor
    mask: Tensor


def read_slices(folder: Path, pixel_mm: float = 3.0) -> list[Slice]:
    """Read every pair; raises ValueError, naming the file, for a name without patient or a missing mask."""
    slices = []
    for picture in sorted((folder / "images").iterdir()):
        found = _NAME.match(picture.name)
        masks = list((folder / "masks").glob(f"{picture.stem}.*"))
        if not found or len(masks) != 1:
            raise ValueError(f"{picture.name}: the name holds no patient, or there is not one mask of this name")
        mask = _read(masks[0], PIXEL_MM / pixel_mm) / 255
        slices.append(Slice(found[1], _read(picture, PIXEL_MM / pixel_mm), mask))
    return slices


def pseudo_volume(item: Slice, shape: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """HU and mask (slice, row, column) of a deformed random crop around the pancreas, repeated by slices."""
    generator = torch.Generator().manual_seed(seed)
    planes = torch.stack([item.hounsfield, item.mask])[None]
    inside = (planes[0, 1] > 0.5).nonzero().float()
    centre = inside.mean(0) if len(inside) else torch.tensor(planes.shape[2:]) / 2
    centre = centre + (torch.rand(2, generator=generator) - 0.5) * 40
    points = (_deformed(shape[1:], generator) + centre) / (torch.tensor(planes.shape[2:]) - 1) * 2 - 1
    # Beyond the picture is what the picture has for air, 0.
    crop = nn_functional.grid_sample(planes, points.flip(-1)[None], align_corners=True)[0]
    volume = _change_scanner(crop[0], generator).repeat(shape[0], 1, 1)
    return volume.clamp(min=0), (crop[1] > 0.5).long().repeat(shape[0], 1, 1)


def _deformed(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Offsets (row, column, 2) from the centre in voxels: scaled along both axes, turned, bent."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape), indexing="ij")
    scale = 0.8 + 0.4 * torch.rand(2, generator=generator)
    angle = (torch.rand(1, generator=generator) - 0.5) * 0.5
    turn = torch.stack([torch.cat([angle.cos(), -angle.sin()]), torch.cat([angle.sin(), angle.cos()])])
    coarse = torch.randn(1, 2, 5, 6, generator=generator) * 2 * torch.rand(1, generator=generator)
    bend = nn_functional.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    return (torch.stack(axes, -1) * scale) @ turn + bend


def _change_scanner(hounsfield: Tensor, generator: torch.Generator) -> Tensor:
    """Other blur, noise, contrast and enhancement, shape (1, row, column)."""
    plane = hounsfield[None]
    if torch.rand(1, generator=generator) < 0.3:
        plane = nn_functional.avg_pool2d(plane, 3, 1, 1, count_include_pad=False)
    plane = plane * (0.75 + 0.5 * torch.rand(1, generator=generator)) + 20 * torch.randn(1, generator=generator)
    return plane + torch.randn(plane.shape, generator=generator) * (2 + 12 * torch.rand(1, generator=generator))


def _read(path: Path, scale: float) -> Tensor:
    array = np.asarray(Image.open(path).convert("L"), dtype=np.float32)[::-1].copy()
    picture = torch.from_numpy(array)[None, None]
    return nn_functional.interpolate(picture, scale_factor=scale, mode="bilinear", antialias=True)[0, 0]

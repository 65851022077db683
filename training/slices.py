"""Folders of picture pairs: axial slices and their manual masks, split by patient, as thin pseudo-volumes.

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

PIXEL_MM = 0.78
"""The pictures carry no spacing; this is near the mean of such scans, and augmentation varies it."""

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


def split_by_patient(slices: list[Slice], held_out: int, seed: int) -> tuple[list[Slice], list[Slice]]:
    """Training and validation; all slices of a patient are on one side."""
    patients = sorted({item.patient for item in slices})
    order = np.random.default_rng(seed).permutation(len(patients))
    kept_apart = {patients[index] for index in order[:held_out]}
    return [s for s in slices if s.patient not in kept_apart], [s for s in slices if s.patient in kept_apart]


def pseudo_volume(item: Slice, shape: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """HU and mask (slice, row, column) of a random crop around the pancreas, scaled by chance, repeated by slices."""
    generator = torch.Generator().manual_seed(seed)
    scale = float(0.85 + 0.3 * torch.rand(1, generator=generator))
    planes = torch.stack([item.hounsfield, item.mask])[None]
    planes = nn_functional.interpolate(planes, scale_factor=scale, mode="bilinear", antialias=True)[0]
    inside = (planes[1] > 0.5).nonzero().float()
    centre = inside.mean(0) if len(inside) else torch.tensor(planes.shape[1:]) / 2
    centre = centre + (torch.rand(2, generator=generator) - 0.5) * 40
    crop = _crop(planes, centre, shape[1:])
    crop[0] += torch.randn(crop[0].shape, generator=generator) * 8
    crop[0] = crop[0] * (0.85 + 0.3 * torch.rand(1, generator=generator)) + 20 * torch.randn(1, generator=generator)
    volume = crop[:, None].repeat(1, shape[0], 1, 1)
    return volume[0].clamp(min=0), (volume[1] > 0.5).long()


def _crop(planes: Tensor, centre: Tensor, shape: tuple[int, ...]) -> Tensor:
    padded = nn_functional.pad(planes, (shape[1], shape[1], shape[0], shape[0]))
    top, left = (round(float(c) + n / 2) for c, n in zip(centre, shape, strict=True))
    return padded[:, top : top + shape[0], left : left + shape[1]].clone()


def _read(path: Path, scale: float) -> Tensor:
    array = np.asarray(Image.open(path).convert("L"), dtype=np.float32)[::-1].copy()
    picture = torch.from_numpy(array)[None, None]
    return nn_functional.interpolate(picture, scale_factor=scale, mode="bilinear", antialias=True)[0, 0]

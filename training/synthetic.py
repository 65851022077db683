"""Synthetic CT from whole-body label maps: endless labelled volumes with known truth.

A map is posed, bent and built differently (`training.deformation`), gets the wall, fat, bowel and vessels that it does
not tell of (`training.arrangement`), HU of a phase of contrast (`training.painting`), and is scanned
(`training.scanner`). Arrays and tensors are slice, row, column in orientation SPL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.anatomy import Anatomy
from training.arrangement import Layout, arrange
from training.deformation import Shape, deform
from training.fields import along_axes, chance
from training.painting import paint
from training.scanner import draw_scanner, scan
from training.tissues import TISSUES

_FINE_MM = (1.0, 1.5)  # least and most between voxels of the grid on which a body is made, before it is scanned
_PANCREAS = 1


@dataclass(frozen=True, eq=False)
class Sample:
    """A synthetic CT. hounsfield: float32 (slice, row, column); labels: int64 of LABELS, the same shape."""

    hounsfield: Tensor
    labels: Tensor


def synthesise(
    anatomy: Anatomy,
    shape: Shape,
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    elsewhere: float = 0.35,
    bowel_of: Anatomy | None = None,
) -> Sample:
    """A synthetic CT of the given shape and voxel size (slice, row, column); the same seed makes the same sample.

    elsewhere: share of samples from anywhere in the body, which show what the pancreas is not; the others cut it.
    bowel_of: where some samples borrow their bowel, out of place; None: from the same map.
    """
    generator = torch.Generator().manual_seed(seed)
    scanner = draw_scanner(generator)
    wanted_mm = torch.tensor(spacing_mm)
    inner = (wanted_mm * torch.tensor(shape) / (wanted_mm / 2).clamp(*_FINE_MM)).round().clamp(min=1).int().tolist()
    step_mm = wanted_mm * torch.tensor(shape) / torch.tensor(inner)
    beyond_mm = scanner.reach_mm((shape[0] - 1) * spacing_mm[0], spacing_mm[0]) - spacing_mm[0] / 2
    margin = math.ceil(beyond_mm / float(step_mm[0]) - 1e-3)
    fine = (inner[0] + 2 * margin, inner[1], inner[2])
    places = deform(anatomy, fine, step_mm, chance(generator, elsewhere), generator)
    layout = arrange(anatomy, places, step_mm, generator, bowel_of or anatomy)
    hounsfield = scan(paint(layout, step_mm, generator), torch.stack([step_mm, wanted_mm]), shape, scanner, generator)
    return Sample(hounsfield, _label(layout, margin, shape))


def _label(layout: Layout, margin: int, shape: Shape) -> Tensor:
    """The pancreas where it fills half of a voxel at least, elsewhere the label in the voxel's middle."""
    tissue = layout.tissue[margin : len(layout.tissue) - margin]
    labels = torch.tensor([row.label for row in TISSUES.values()])[tissue.int()]
    shares = [_shares(size, of) for size, of in zip(shape, labels.shape, strict=True)]
    pancreas = along_axes((labels == _PANCREAS).float(), shares) >= 0.5
    for axis, (size, of) in enumerate(zip(shape, labels.shape, strict=True)):
        labels = labels.index_select(axis, ((torch.arange(size) + 0.5) * of / size).long())
    return labels.masked_fill(labels == _PANCREAS, 0).masked_fill(pancreas, _PANCREAS)


def _shares(size: int, of: int) -> Tensor:
    """Matrix (size, of): how much of each wide voxel each of the narrow ones fills, all together as wide."""
    wide, narrow = torch.arange(size)[:, None] * of / size, torch.arange(of)
    overlap = torch.minimum(wide + of / size, narrow + 1.0) - torch.maximum(wide, narrow)
    return overlap.clamp(min=0) * size / of

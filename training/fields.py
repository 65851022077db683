"""Smooth random fields and resampling, one axis at a time: on a CPU a product with a small matrix beats all else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SPREAD = 3.0  # cubic B-splines leave about a third of the standard deviation of independent values, in three axes


def along_axes(volume: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """A volume (..., slice, row, column), each axis multiplied by its matrix (new size, old size)."""
    slices, rows, columns = matrices
    volume = rows @ (volume @ columns.T)
    return (slices @ volume.flatten(-2)).unflatten(-1, volume.shape[-2:])


def linear(size: int, knots: int) -> Tensor:
    """Matrix (size, knots) that interpolates linearly between knots, the first and last of both in the same place."""
    places = torch.linspace(0, knots - 1, size)
    return (1 - (places[:, None] - torch.arange(knots)).abs()).clamp(min=0)


def random_field(shape: Sequence[int], cells: Sequence[float], generator: torch.Generator, count: int = 1) -> Tensor:
    """Fields (count, slice, row, column) of about unit variance; cells: voxels from one random value to the next."""
    matrices = [_spline(size, cell) for size, cell in zip(shape, cells, strict=True)]
    knots = torch.randn(count, *(len(matrix.T) for matrix in matrices), generator=generator)
    return along_axes(_SPREAD * knots, matrices)


def uniform(generator: torch.Generator, low: float, high: float, count: int = 1) -> Tensor:
    """Random numbers (count,)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def chance(generator: torch.Generator, share: float) -> bool:
    """True in this share of draws."""
    return bool(torch.rand(1, generator=generator) < share)


def _spline(size: int, cell: float) -> Tensor:
    """Matrix (size, knots) of uniform cubic B-splines."""
    places = torch.arange(size) / cell + 1
    knots = torch.arange(math.ceil((size - 1) / cell) + 3)
    distance = (places[:, None] - knots).abs()
    inner = 2 / 3 - distance**2 * (1 - distance / 2)
    outer = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, inner, outer)

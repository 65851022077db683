"""From the voxels of a sample to those of a label map: another patient, posed and built differently."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.anatomy import MAP_MM, Anatomy
from training.fields import along_axes, linear, random_field, uniform

Shape = tuple[int, int, int]
_KNOT_MM = 9.0  # between the places where a deformation is worked out


def deform(anatomy: Anatomy, shape: Shape, step_mm: Tensor, elsewhere: bool, generator: torch.Generator) -> Tensor:
    """Places (3, *shape) in voxels of the map: scaled, turned, bent, with organs of other sizes in other places.

    step_mm: between voxels of the sample (slice, row, column). elsewhere: from anywhere in the body.
    """
    extent = (torch.tensor(shape) - 1) * step_mm
    knots = [math.ceil(float(length) / _KNOT_MM) + 1 for length in extent]
    axes = [(torch.arange(n) / max(1, n - 1) - 0.5) * length for n, length in zip(knots, extent, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    posed = (_rotation(uniform(generator, -0.13, 0.13, 3)) @ grid.flatten(1)) / _sizes(generator)[:, None]
    places = (posed / MAP_MM).unflatten(1, knots) + _centre(anatomy, elsewhere, generator)[:, None, None, None]
    for cell_mm, most in ((70, 7), (28, 3.2)):  # bends of the trunk, and of single organs
        cells = [cell_mm / max(1.0, float(length)) * max(1, n - 1) for n, length in zip(knots, extent, strict=True)]
        places = places + random_field(knots, cells, generator, 3) * uniform(generator, 0.2, 1) * most / MAP_MM
    places = _move_organs(places, anatomy, generator)
    return along_axes(places, [linear(size, n) for size, n in zip(shape, knots, strict=True)])


def _sizes(generator: torch.Generator) -> Tensor:
    """Of the patient against the map's, along each axis."""
    return uniform(generator, 0.85, 1.2) * uniform(generator, 0.92, 1.08, 3)


def _centre(anatomy: Anatomy, elsewhere: bool, generator: torch.Generator) -> Tensor:
    size = torch.tensor(anatomy.tissue.shape, dtype=torch.float32)
    if elsewhere or not len(anatomy.places):
        return size * uniform(generator, 0.1, 0.9, 3)
    one = int(torch.randint(0, len(anatomy.places), (1,), generator=generator))
    within = anatomy.places[one].float()
    around = anatomy.places.float().mean(0) + uniform(generator, -1, 1, 3) * torch.tensor([0.0, 22.0, 28.0])
    return torch.cat([within[:1], around[1:]])  # so that a thin sample, too, cuts the pancreas


def _move_organs(places: Tensor, anatomy: Anatomy, generator: torch.Generator) -> Tensor:
    """Organs swell, shrink, turn and slide, and take their surroundings with them, less and less with distance."""
    moved = places
    for centre, radius in anatomy.organs.values():
        away = places - centre[:, None, None, None]
        weight = torch.exp(-away.square().sum(0) / (1.3 * radius + 6) ** 2)
        size = torch.exp(uniform(generator, -0.27, 0.27)) * torch.exp(uniform(generator, -0.1, 0.1, 3))
        turn = _rotation(uniform(generator, -0.22, 0.22, 3))
        slide = uniform(generator, -0.17, 0.17, 3) * (radius + 8)
        inside = (turn @ away.flatten(1)).unflatten(1, away.shape[1:]) / size[:, None, None, None]
        moved = moved + weight * (inside - away - slide[:, None, None, None])
    return moved


def _rotation(angles: Tensor) -> Tensor:
    skew = torch.zeros(3, 3)
    skew[0, 1], skew[0, 2], skew[1, 2] = angles
    return torch.matrix_exp(skew - skew.T)

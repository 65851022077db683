"""What lies where in one body: a label map looked up at deformed places, and then what no label map tells.

Label maps say nothing of the wall of the belly, of fat, and of vessels in it; and two of them have two arrangements of
the bowel. Here the body gets its wall and its fat, lean to obese, bowel of another arrangement, vessels and strands in
the fat, and a pancreas that is thinner, thicker, lobulated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.anatomy import FAR, MAP_MM, Anatomy
from training.fields import along_axes, chance, linear, random_field, uniform
from training.tissues import INDEX

HOLLOW = ("stomach", "duodenum", "colon", "bowel")
_FIELD_SLOPE = 1.5  # of a random field, in standard deviations for each cell
_SKIN_MM = 2.0


@dataclass(eq=False)
class Layout:
    """What is in each voxel (slice, row, column).

    tissue: uint8 indices of TISSUES. depth_mm: below the surface of a hollow organ, kidney or bone; far elsewhere.
    hull_mm, pancreas_mm: distances to the surfaces of the closed body and of the map's pancreas, negative inside.
    field: makes a smooth random field (slice, row, column) of about unit variance from its cell in mm.
    """

    tissue: Tensor
    depth_mm: Tensor
    hull_mm: Tensor
    pancreas_mm: Tensor
    field: Callable[[float], Tensor]

    def are(self, *names: str) -> Tensor:
        """Bool: which voxels are of these tissues."""
        first, *others = (self.tissue == INDEX[name] for name in names)
        return functools.reduce(torch.logical_or, others, first)

    def put(self, name: str, where: Tensor) -> None:
        """Change the tissue of these voxels."""
        self.tissue.masked_fill_(where, INDEX[name])


def arrange(anatomy: Anatomy, places: Tensor, step_mm: Tensor, generator: torch.Generator, bowel_of: Anatomy) -> Layout:
    """Look up the map at places (3, slice, row, column), in its voxels, `step_mm` apart; and change what is there.

    bowel_of: another map, or the same, from which bowel may be borrowed.
    """
    layout = _look_up(anatomy, places, step_mm, generator)
    _build_wall(layout, generator)
    if chance(generator, 0.5):
        before = places[1] < _row_behind_bowel(anatomy)
        free = before & (layout.hull_mm < -4)
        if chance(generator, 0.5):
            _rearrange_bowel(layout, free, generator)
        else:
            _borrow_bowel(layout, free, bowel_of, places + _shift(anatomy, bowel_of, generator), generator)
    _reshape_pancreas(layout, generator)
    if chance(generator, 0.7):
        _crowd_pancreas(layout, generator)
    _fill_fat(layout, generator)
    layout.put("pelvis", layout.are("kidney") & (layout.depth_mm > uniform(generator, 9, 14)))
    layout.put("cortex", layout.are("kidney") & (layout.depth_mm < uniform(generator, 4, 7.5)))
    layout.put("cortical", layout.are("bone") & (layout.depth_mm < uniform(generator, 1.3, 2.6)))
    return layout


def _index(places: Tensor, of: torch.Size, generator: torch.Generator) -> Tensor:
    """Flat indices of the nearest voxels, now and then of the next: a map's stairs become gradual."""
    shape = places.shape[1:]
    index = torch.zeros(shape, dtype=torch.int64)
    jitter = uniform(generator, -0.45, 0.45, shape.numel()).view(shape)
    for place, size, axis in zip(places, of, range(3), strict=True):
        index.mul_(size).add_((place + jitter.flip(axis)).round_().clamp_(0, size - 1).long())
    return index


def _look_up(anatomy: Anatomy, places: Tensor, step_mm: Tensor, generator: torch.Generator) -> Layout:
    shape = places.shape[1:]
    index = _index(places, anatomy.tissue.shape, generator)
    half = [max(2, (n + 1) // 2) for n in shape]
    coarse = along_axes(places, [linear(n, size) for n, size in zip(half, shape, strict=True)])
    fine = [linear(size, n) for n, size in zip(half, shape, strict=True)]

    def field(cell_mm: float) -> Tensor:
        return random_field(shape, [cell_mm / step for step in step_mm.tolist()], generator)[0]

    # Between organs of a lean body there is no fat; label maps leave a voxel or two there.
    beside, reach_mm = anatomy.beside.flatten()[index], uniform(generator, 0, 6) + 1.2 * field(30)
    grown = (beside > 0) & (((beside // FAR) - 0.5) * MAP_MM < reach_mm)
    return Layout(
        torch.where(grown, beside % FAR, anatomy.tissue.flatten()[index]),
        anatomy.depth.flatten()[index] * 0.25,
        along_axes(anatomy.hull.at(coarse), fine),
        along_axes(anatomy.pancreas.at(coarse), fine),
        field,
    )


def _build_wall(layout: Layout, generator: torch.Generator) -> None:
    """Muscle around the belly, fat under the skin, skin, air."""
    within_mm, muscle_mm = uniform(generator, 1, 7), uniform(generator, 1, 9) * (1 + 0.3 * layout.field(50))
    fat_mm = torch.exp(uniform(generator, math.log(3), math.log(45))) * torch.exp(0.3 * layout.field(90))
    above = layout.hull_mm - muscle_mm.clamp(min=0)
    outside = layout.are("fat") & (layout.hull_mm > -within_mm)
    layout.put("muscle", outside & (above < 0))
    layout.put("skin", outside & (above > fat_mm))
    layout.put("air", outside & (above > fat_mm + _SKIN_MM))


def _row_behind_bowel(anatomy: Anatomy) -> float:
    """A row of the map behind which there is no bowel but that of the map."""
    rows = anatomy.places[:, 1].float()
    return float(rows.mean()) + 12 / MAP_MM if len(rows) else 0.0


def _shift(anatomy: Anatomy, other: Anatomy, generator: torch.Generator) -> Tensor:
    """From places in one map to such in the other: pancreas on pancreas, and then somewhere else."""
    centres = [of.places.float().mean(0) for of in (anatomy, other) if len(of.places)]
    return (centres[-1] - centres[0] + uniform(generator, -30, 30, 3))[:, None, None, None]


def _rearrange_bowel(layout: Layout, free: Tensor, generator: torch.Generator) -> None:
    """Other loops in the place of the map's, anywhere in the fat in front of the kidneys."""
    erased = ["bowel"] + ["colon"] * chance(generator, 0.4) + ["stomach"] * chance(generator, 0.1)
    layout.put("fat", layout.are(*erased))
    share = uniform(generator, 0.25, 0.65)
    _put_loops(layout, "bowel", free & layout.are("fat"), float(uniform(generator, 24, 48)), share)


def _borrow_bowel(layout: Layout, free: Tensor, other: Anatomy, places: Tensor, generator: torch.Generator) -> None:
    """The hollow organs of another body, or of another part of this one, wherever there is fat."""
    layout.put("fat", layout.are("bowel"))
    index = _index(places, other.tissue.shape, generator)
    tissue = other.tissue.flatten()[index]
    new = free & layout.are("fat") & torch.isin(tissue, torch.tensor([INDEX[name] for name in HOLLOW]))
    layout.tissue = torch.where(new, tissue, layout.tissue)
    layout.depth_mm = torch.where(new, other.depth.flatten()[index] * 0.25, layout.depth_mm)


def _crowd_pancreas(layout: Layout, generator: torch.Generator) -> None:
    """Loops of jejunum and duodenum that touch the pancreas, as in the lean."""
    free = layout.are("fat") & (layout.pancreas_mm < uniform(generator, 10, 25)) & (layout.hull_mm < -4)
    name = "bowel" if chance(generator, 0.6) else "duodenum"
    _put_loops(layout, name, free, float(uniform(generator, 16, 34)), uniform(generator, 0.35, 0.95))


def _put_loops(layout: Layout, name: str, where: Tensor, cell_mm: float, share: Tensor) -> None:
    """Tubes along the lines on which two random fields are both zero, so wide that they fill a share of all space."""
    edge = (-2 * torch.log(1 - share)).sqrt()
    below_mm = (edge - torch.hypot(layout.field(cell_mm), layout.field(cell_mm))) * (cell_mm / _FIELD_SLOPE)
    new = where & (below_mm > 0)
    layout.put(name, new)
    layout.depth_mm = torch.where(new, below_mm, layout.depth_mm)


def _reshape_pancreas(layout: Layout, generator: torch.Generator) -> None:
    """Atrophy and growth, evenly and by lobules: the surface moves in and out."""
    thinner_mm = uniform(generator, -2, 2.5)
    lobules_mm = uniform(generator, 0, 1.6) * layout.field(float(uniform(generator, 5, 10)))
    distance = layout.pancreas_mm + thinner_mm + lobules_mm + uniform(generator, 0.3, 2.2) * layout.field(28)
    layout.pancreas_mm = distance
    was, near = layout.are("pancreas"), distance < 0
    layout.put("fat", was & ~near)
    layout.put("pancreas", near & layout.are("fat"))


def _fill_fat(layout: Layout, generator: torch.Generator) -> None:
    """Vessels in the fat among the organs, many thin and fewer thick ones, and the duct in the pancreas."""
    inside = layout.are("fat") & (layout.hull_mm < -3)
    for thin, thick in ((7, 12), (12, 22)):
        cell_mm = float(uniform(generator, thin, thick))
        away_mm = torch.hypot(layout.field(cell_mm), layout.field(cell_mm)) * (cell_mm / _FIELD_SLOPE)
        layout.put("branch", inside & (away_mm < uniform(generator, 0.05, 0.16) * cell_mm))
    duct_mm = uniform(generator, 0, 1.6)
    layout.put("duct", layout.are("pancreas") & (layout.pancreas_mm < -4) & (away_mm < duct_mm))

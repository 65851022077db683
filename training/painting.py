"""HU of a body: tissues in a phase of contrast, what the bowel holds, texture, the table it lies on."""

from __future__ import annotations

import torch
from torch import Tensor

from training.arrangement import HOLLOW, Layout
from training.fields import chance, uniform
from training.tissues import INDEX, draw_hounsfield

_TEXTURE = {"lung": 70.0, "bone": 55.0, "cortical": 120.0, "fat": 7.0, "air": 0.0, "trachea": 0.0}
_USUAL_TEXTURE = 4.0
_SOFT = ("muscle", "pancreas")  # tissues with fat between their fibres or lobules


def paint(layout: Layout, step_mm: Tensor, generator: torch.Generator) -> Tensor:
    """HU, float32 (slice, row, column)."""
    table = draw_hounsfield(generator)
    hounsfield = table[layout.tissue.int()]
    grain, mottle = layout.field(float(uniform(generator, 2.5, 4.5))), layout.field(12)
    strength = torch.full((len(table),), _USUAL_TEXTURE)
    for name, of in _TEXTURE.items():
        strength[INDEX[name]] = of
    hounsfield += strength[layout.tissue.int()] * (0.6 * grain + mottle)
    for name in _SOFT:
        share = uniform(generator, 0, 1) ** 3
        _mix(hounsfield, layout.are(name), (grain - 2.8 + 2 * share).clamp(0, 1), float(table[INDEX["fat"]]))
    _add_strands(hounsfield, layout, mottle, generator)
    _add_vessels_of_liver(hounsfield, layout, float(table[INDEX["portal"]]), generator)
    _fill_bowel(hounsfield, layout, step_mm, generator)
    _add_table(hounsfield, layout, step_mm, generator)
    return hounsfield


def _mix(hounsfield: Tensor, where: Tensor, share: Tensor, other: float) -> None:
    hounsfield.copy_(torch.where(where, hounsfield + share * (other - hounsfield), hounsfield))


def _add_strands(hounsfield: Tensor, layout: Layout, mottle: Tensor, generator: torch.Generator) -> None:
    """Fasciae and small vessels: thin sheets in the fat, denser or fewer."""
    thin = (1 - mottle.abs() / uniform(generator, 0.02, 0.18)).clamp(min=0)
    _mix(hounsfield, layout.are("fat") & (layout.hull_mm < 0), thin * uniform(generator, 0.1, 0.8), 30.0)


def _add_vessels_of_liver(hounsfield: Tensor, layout: Layout, portal: float, generator: torch.Generator) -> None:
    near = torch.hypot(layout.field(24), layout.field(24))
    _mix(hounsfield, layout.are("liver"), (near < uniform(generator, 0.1, 0.28)).float(), portal)


def _fill_bowel(hounsfield: Tensor, layout: Layout, step_mm: Tensor, generator: torch.Generator) -> None:
    """Fluid, gas above a level, food and faeces, contrast agent that was drunk."""
    lumen = layout.are(*HOLLOW) & (layout.depth_mm > uniform(generator, 1.2, 3.5))
    kind = layout.field(45)
    rows = layout.tissue.shape[1]
    behind_mm = (torch.arange(rows) - (rows - 1) / 2)[:, None] * step_mm[1]
    food = layout.field(6)
    content = uniform(generator, -5, 50) + uniform(generator, 3, 35) * food
    if chance(generator, 0.45):  # feathery between the folds of the jejunum
        agent = uniform(generator, 60, 350) * (0.8 + uniform(generator, 0, 0.5) * food)
        content = torch.where(kind > uniform(generator, -1, 1), content + agent, content)
    faeces = uniform(generator, -60, 60) + 90 * food
    content = torch.where(layout.are("colon") & (kind.abs() < 0.8), faeces, content)
    # The level is flat within a loop, and another one from loop to loop.
    level_mm = uniform(generator, -95, -25) + 30 * (1.5 * layout.field(60)).round()
    content = torch.where(behind_mm < level_mm, torch.tensor(-960.0), content)
    collapsed = kind < uniform(generator, -1.3, 0.5)
    hounsfield.copy_(torch.where(lumen & ~collapsed, content, hounsfield))


def _add_table(hounsfield: Tensor, layout: Layout, step_mm: Tensor, generator: torch.Generator) -> None:
    """A plate under the back, flat or hollow."""
    air = layout.tissue == INDEX["air"]
    occupied = (~air).any(2).any(0).nonzero()
    if not len(occupied) or chance(generator, 0.3):
        return
    rows, columns = (torch.arange(n) * float(step) for n, step in zip(air.shape[1:], step_mm[1:], strict=True))
    hollow = uniform(generator, 0, 0.0015) * (columns - columns.mean()).square()
    below = rows[:, None] + hollow - rows[occupied[-1]] - uniform(generator, 0, 12)
    plate = air & (below > 0) & (below < uniform(generator, 1.5, 4))
    hounsfield.masked_fill_(plate, float(uniform(generator, -500, 200)))

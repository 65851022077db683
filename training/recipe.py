"""A recipe: every number of a training run, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """patch: voxels (slice, row, column) at spacing_mm. network: its name and the arguments of MONAI's class.

    repeats: how often each synthetic CT of a step is learnt from, each time beside other slices.
    """

    name: str
    spacing_mm: float
    window_hu: tuple[float, float]
    patch: tuple[int, int, int]
    overlap: float
    synthetic_per_step: int
    slices_per_step: int
    slice_depth: int
    repeats: int
    held_out_patients: int
    learning_rate: float
    validate_every: int
    network: Mapping[str, Any]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raises ValueError, naming the file and the key that is missing or unknown."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    known = {field.name for field in fields(Recipe)}
    if content.keys() != known:
        raise ValueError(f"{path}: missing or unknown keys: {', '.join(sorted(content.keys() ^ known))}")
    for key in ("window_hu", "patch"):
        content[key] = tuple(content[key])
    return Recipe(**content)

"""The source of a recipe's batches, out of a folder of data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from training.anatomy import read_anatomies
from training.batches import Source
from training.crops import Crops
from training.datasets import find_examples
from training.examples import Options
from training.manifest import make_manifest, write_manifest
from training.mixture import Mixture
from training.recipe import Examples, Recipe
from training.slices import read_slices
from training.splits import Item, fold_by_patient, split_by_patient

SPLIT_SEED = 0


def make_source(recipe: Recipe, data: Path, run: Path, fold: tuple[int, int] | None = None) -> Source:
    """The recipe's data, split by patient. fold: (which, of how many) in the place of the recipe's share held out.

    run: folder of the run, where the manifest of all files goes. Raises ValueError, naming file or folder.
    """
    if isinstance(recipe.data, Examples):
        choices = recipe.data
        options = Options(**choices.model_dump(include=set(Options.__dataclass_fields__)))
        examples = find_examples(data, choices.layout, options)
        training, validation = split(examples, recipe, fold)
        run.mkdir(parents=True, exist_ok=True)
        records = make_manifest(data, {"training": training, "validation": validation})
        write_manifest(run / "manifest.json", records)
        return Crops(recipe, training, validation, run / "cache")
    slices = split(read_slices(data / "nih-slices", recipe.card.spacing_mm[1]), recipe, fold)
    anatomies = read_anatomies(data / "anatomies") if recipe.data.synthetic_per_step else []
    return Mixture(recipe, anatomies, *slices)


def split(items: Sequence[Item], recipe: Recipe, fold: tuple[int, int] | None = None) -> tuple[list[Item], list[Item]]:
    """Training and validation of a recipe, by patient."""
    if fold is None:
        return split_by_patient(items, recipe.held_out, SPLIT_SEED)
    return fold_by_patient(items, fold[1], SPLIT_SEED)[fold[0]]


def parse_fold(text: str | None) -> tuple[int, int] | None:
    """K and N of "K/N", K from 0; raises ValueError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(f"fold {text!r}: K/N is needed, K from 0 and below N")
    return int(found[1]), int(found[2])

"""Splits by patient, never by example: who is in training is in no other part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np


class _OfPatient(Protocol):
    @property
    def patient(self) -> str: ...


Item = TypeVar("Item", bound=_OfPatient)


def split_by_patient(items: Sequence[Item], held_out: int | float, seed: int) -> tuple[list[Item], list[Item]]:
    """Training, and what is held out; the seed and the set of patients decide, not the order of the items.

    held_out: number of patients, or as a float below 1 their share, which is rounded up. Raises ValueError where no
    patient is left for training.
    """
    patients = _shuffled(items, seed)
    count = math.ceil(held_out * len(patients)) if isinstance(held_out, float) else held_out
    if not 0 <= count < len(patients):
        raise ValueError(f"{count} of {len(patients)} patients cannot be held out")
    return _part(items, patients[:count])


def fold_by_patient(items: Sequence[Item], folds: int, seed: int) -> list[tuple[list[Item], list[Item]]]:
    """For each fold its training and its validation; each patient is in the validation of one fold.

    Raises ValueError unless there are two folds at least and a patient for each.
    """
    patients = _shuffled(items, seed)
    if not 2 <= folds <= len(patients):
        raise ValueError(f"{folds} folds of {len(patients)} patients")
    return [_part(items, patients[fold::folds]) for fold in range(folds)]


def _shuffled(items: Sequence[Item], seed: int) -> list[str]:
    patients = sorted({item.patient for item in items})
    return [patients[index] for index in np.random.default_rng(seed).permutation(len(patients))]


def _part(items: Sequence[Item], kept_apart: Sequence[str]) -> tuple[list[Item], list[Item]]:
    return (
        [item for item in items if item.patient not in kept_apart],
        [item for item in items if item.patient in kept_apart],
    )

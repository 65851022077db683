"""Splits by patient: nobody on two sides, the same for the same patients, and the shipped model's as it was."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.splits import fold_by_patient, split_by_patient


@dataclass(frozen=True)
class Item:
    patient: str
    number: int = 0


ITEMS = st.lists(st.builds(Item, st.text("abcdefgh", min_size=1, max_size=2), st.integers(0, 9)), min_size=2)


def patients(items: list[Item]) -> set[str]:
    return {item.patient for item in items}


@given(ITEMS, st.integers(0, 5), st.integers(0, 100), st.randoms())
def test_a_patient_is_on_one_side_whatever_the_order_of_the_items(
    items: list[Item], held_out: int, seed: int, random: object
) -> None:
    held_out = min(held_out, len(patients(items)) - 1)
    training, kept_apart = split_by_patient(items, held_out, seed)
    assert len(patients(kept_apart)) == held_out
    assert patients(training).isdisjoint(patients(kept_apart))
    assert sorted([*training, *kept_apart], key=repr) == sorted(items, key=repr)
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert patients(split_by_patient(shuffled, held_out, seed)[1]) == patients(kept_apart)


@given(ITEMS, st.integers(2, 6), st.integers(0, 100))
def test_every_patient_is_validated_in_one_fold(items: list[Item], folds: int, seed: int) -> None:
    if folds > len(patients(items)):
        with pytest.raises(ValueError, match="folds of"):
            fold_by_patient(items, folds, seed)
        return
    parts = fold_by_patient(items, folds, seed)
    sizes = [len(patients(validation)) for _, validation in parts]
    assert sum(sizes) == len(patients(items))
    assert max(sizes) - min(sizes) <= 1
    assert set.union(*(patients(validation) for _, validation in parts)) == patients(items)
    for training, validation in parts:
        assert patients(training).isdisjoint(patients(validation))
        assert len(training) + len(validation) == len(items)


def test_a_share_is_rounded_up_and_somebody_is_left() -> None:
    items = [Item(name) for name in "abcde"]
    assert len(split_by_patient(items, 0.21, 0)[1]) == 2
    with pytest.raises(ValueError, match="5 of 5 patients"):
        split_by_patient(items, 5, 0)
    with pytest.raises(ValueError, match="1 of 1 patients"):
        split_by_patient(items[:1], 0.1, 0)


def test_the_split_of_the_shipped_model_stays_what_it_was() -> None:
    """Of the 46 patients of its slices, ten with seed 0: its card's figures are on these."""
    absent = {3, 4, 6, 10, 11, 19, 20, 23, 25, 27, 28, 44, 46, 57, 59}
    items = [Item(f"PANCREAS_{number:04d}") for number in range(1, 62) if number not in absent]
    held_out = sorted(int(item.patient[-4:]) for item in split_by_patient(items, 10, 0)[1])
    assert held_out == [2, 5, 8, 17, 30, 31, 32, 33, 56, 58]

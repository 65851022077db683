"""Learning rates, plateaus and ends."""

import pytest

from training.pace import Pace
from training.recipe import Optimisation


def pace(schedule: str, **more: float) -> Pace:
    return Pace(Optimisation(learning_rate=1.0, schedule=schedule, **more), steps=10, seconds=100)


def advanced(schedule: str, steps: int) -> float:
    one = pace(schedule)
    for _ in range(steps):
        one.advance(1)
    return one.learning_rate


def test_rates_fall_over_the_run() -> None:
    assert advanced("constant", 9) == 1
    assert advanced("cosine", 0) == 1
    assert advanced("cosine", 5) == pytest.approx(0.5)
    assert advanced("polynomial", 5) == pytest.approx(0.5**0.9)
    assert 0 < advanced("polynomial", 10) < 0.05


def test_a_plateau_lowers_the_rate_and_too_long_a_one_ends_the_run() -> None:
    one = pace("plateau", plateau_factor=0.4, plateau_patience=2, stop_after=5)
    rates = []
    for figure in (0.5, 0.4, 0.5, 0.3, 0.2):
        one.note(figure)
        rates.append(one.learning_rate)
    assert rates == pytest.approx([1, 1, 0.4, 0.4, 0.16])
    assert not one.is_over
    one.note(0.5)
    assert one.is_over
    assert one.best == 0.5


def test_steps_and_seconds_end_a_run_whichever_is_first() -> None:
    slow, quick = pace("constant"), pace("constant")
    slow.advance(100)
    for _ in range(10):
        quick.advance(1)
    assert slow.is_over
    assert quick.is_over
    assert not pace("constant").is_over


def test_a_state_restores_all() -> None:
    one, other = pace("plateau", stop_after=3), pace("plateau", stop_after=3)
    one.advance(3)
    for figure in (0.5, 0.4):
        one.note(figure)
    other.restore(one.state())
    assert other.state() == one.state() == {"step": 1, "seconds": 3, "best": 0.5, "waited": 1, "plateaus": 0}

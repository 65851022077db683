"""What jobs and deliveries share: moves along a table, and the wait before another attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class IllegalMove(Exception):
    """The table of moves has no entry for this state and event."""


def move(moves: Mapping[tuple[S, E], S], state: S, event: E) -> S:
    """Return the state after the event; raises IllegalMove where the table has none."""
    try:
        return moves[state, event]
    except KeyError:
        raise IllegalMove(f"{event} is not possible in state {state}") from None


@dataclass(frozen=True)
class Backoff:
    """Exponential wait: `first_s`, doubled at each further attempt, never above `cap_s`."""

    first_s: float
    cap_s: float

    def wait_s(self, attempts: int, chance: float = 1.0) -> float:
        """Seconds to wait after the given number of attempts (1 and up).

        chance: from 0 to 1, drawn by the caller, so that many do not come back at once; 0 waits half as long as 1.
        """
        return float(min(self.cap_s, self.first_s * 2.0 ** min(attempts - 1, 62))) * (1 + chance) / 2

"""Which series of a study is preferred, and why. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dicomnode.routing import SeriesFacts, describe_mm
from dicomnode.sections import Criterion, split_preference


@dataclass(frozen=True)
class Candidate:
    """A series of a study that may be analysed.

    rule: position of the rule that lets it through, None where there are none. is_held: it was analysed before, or is
    about to be, so that it is compared with the others but never loses.
    """

    series_instance_uid: str
    facts: SeriesFacts
    rule: int | None = None
    is_held: bool = False


def prefer(candidates: Sequence[Candidate], criteria: Sequence[str]) -> dict[str, str]:
    """Choose the best series of a study; returns why each other one is not analysed, by its UID.

    The criteria are asked in order until one parts two series; then the lower SeriesNumber wins, then the lower UID,
    so that the order of the candidates does not matter.
    """
    if not candidates:
        return {}
    best = min(candidates, key=lambda candidate: _key(candidate, criteria))
    losers = (c for c in candidates if not c.is_held and c.series_instance_uid != best.series_instance_uid)
    return {
        loser.series_instance_uid: f"series ...{best.series_instance_uid[-12:]} of this study is preferred: "
        f"{explain(best, loser, criteria)}"
        for loser in losers
    }


def explain(best: Candidate, other: Candidate, criteria: Sequence[str]) -> str:
    """Say by which criterion the first series is better."""
    for text in criteria:
        if _rank(best, text) != _rank(other, text):
            return _describe(best, other, text)
    numbers = best.facts.series_number, other.facts.series_number
    if numbers[0] != numbers[1]:
        return f"equal, and its number is lower ({_or_unknown(numbers[0])} against {_or_unknown(numbers[1])})"
    return "equal, and its UID comes first"


def _key(candidate: Candidate, criteria: Sequence[str]) -> tuple[list[float], float, str]:
    number = candidate.facts.series_number
    tie = float("inf") if number is None else number
    return [_rank(candidate, text) for text in criteria], tie, candidate.series_instance_uid


def _rank(candidate: Candidate, text: str) -> float:
    """The lower, the better."""
    criterion, value = split_preference(text)
    facts = candidate.facts
    match criterion:
        case Criterion.PHASE:
            return facts.phase != value
        case Criterion.KERNEL:
            return not re.search(value, facts.kernel, re.IGNORECASE)
        case Criterion.CONTRAST:
            return not facts.contrast
        case Criterion.THINNEST:
            return float("inf") if facts.thickness_mm is None else facts.thickness_mm
        case Criterion.MOST_SLICES:
            return -facts.slices
        case Criterion.RULE_ORDER:
            return float("inf") if candidate.rule is None else candidate.rule


def _describe(best: Candidate, other: Candidate, text: str) -> str:
    first, second = best.facts, other.facts
    match split_preference(text)[0]:
        case Criterion.PHASE:
            return f"phase {first.phase} (against {second.phase})"
        case Criterion.KERNEL:
            return f"kernel {first.kernel} (against {second.kernel or 'unknown'})"
        case Criterion.CONTRAST:
            return "contrast agent recorded (against none)"
        case Criterion.THINNEST:
            return f"thinner ({describe_mm(first.thickness_mm)} against {describe_mm(second.thickness_mm)})"
        case Criterion.MOST_SLICES:
            return f"more slices ({first.slices} against {second.slices})"
        case Criterion.RULE_ORDER:
            return f"earlier rule ({_ordinal(best.rule)} against {_ordinal(other.rule)})"


def _ordinal(rule: int | None) -> str:
    return "none" if rule is None else f"number {rule + 1}"


def _or_unknown(number: int | None) -> str:
    return "unknown" if number is None else str(number)

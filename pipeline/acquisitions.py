"""Several acquisitions or phases in one series: told apart by an attribute, one chosen by a stated rule.

The rule: the acquisition with the most slices is measured; of equal ones the latest, because a series that holds
phases begins before the contrast medium has reached the pancreas. What tells acquisitions apart is the first attribute
of `MARKS` whose values split the planes into stacks that overlap along the body and in which no position occurs twice.
Stacks that only follow each other are no phases: a gap between them is a gap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.assumptions import Assumption, AssumptionKind
from pipeline.planes import MARKS, Plane, describe_attribute
from pipeline.stack import SAME_POSITION_MM, distances_mm


def choose_acquisition(planes: Sequence[Plane]) -> tuple[list[Plane], Assumption] | None:
    """The planes of the acquisition to measure, in the order given, and the words that say so.

    None where no attribute tells acquisitions apart: the planes are one stack, whatever is wrong with it.
    """
    for mark in MARKS:
        stacks: dict[str, list[Plane]] = defaultdict(list)
        for plane in planes:
            stacks[plane.marks.get(mark, "")].append(plane)
        if len(stacks) > 1 and all(_is_stack(stack) for stack in stacks.values()):
            value = max(stacks, key=lambda value: (len(stacks[value]), *_rank(value, stacks[value])))
            if all(_overlap(stacks[value], other) for other in stacks.values()):
                return stacks[value], _explain(mark, value, stacks)
    return None


def _is_stack(planes: list[Plane]) -> bool:
    along = np.sort(distances_mm(planes))
    return len(planes) > 1 and bool((np.diff(along) >= SAME_POSITION_MM).all())


def _overlap(chosen: list[Plane], other: list[Plane]) -> bool:
    """Whether they share more than an end: acquisitions of one region, not of neighbouring ones."""
    along = distances_mm([*chosen, *other])
    first, second = along[: len(chosen)], along[len(chosen) :]
    common_mm = min(first.max(), second.max()) - max(first.min(), second.min())
    return bool(common_mm > 0.5 * min(np.ptp(first), np.ptp(second)))


def _rank(value: str, planes: list[Plane]) -> tuple[str, float, str]:
    """The later, the greater: by time, and where there is none by the value itself, as a number if it is one."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    return min(plane.acquired_at for plane in planes), number, value


def _explain(mark: str, chosen: str, stacks: dict[str, list[Plane]]) -> Assumption:
    counts = {value: f"{value or 'without'} ({len(planes)} slices)" for value, planes in stacks.items()}
    left_out = ", ".join(sorted(text for value, text in counts.items() if value != chosen))
    return Assumption(
        AssumptionKind.ACQUISITION_CHOSEN,
        f"{len(stacks)} acquisitions in one series, told apart by {describe_attribute(mark)}: measured is "
        f"{counts[chosen]}, the one with the most slices and, of equal ones, the latest; left out: {left_out}",
    )

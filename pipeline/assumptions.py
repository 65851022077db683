"""What was assumed about a series so that it could be measured: nothing is repaired in silence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AssumptionKind(StrEnum):
    """What kind of thing was taken for granted."""

    IMAGES_LEFT_OUT = "images-left-out"
    ACQUISITION_CHOSEN = "acquisition-chosen"
    TILT_CORRECTED = "tilt-corrected"
    POSITIONS_EVENED = "positions-evened"
    ATTRIBUTE_UNREADABLE = "attribute-unreadable"
    ATTRIBUTE_MISSING = "attribute-missing"
    SERIES_INCOMPLETE = "series-incomplete"


@dataclass(frozen=True)
class Assumption:
    """One line for `findings.json`, the report and the job's events; names no patient."""

    kind: AssumptionKind
    text: str

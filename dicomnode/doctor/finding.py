"""What a check says, and what all checks know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicomnode.archive import Archive
from dicomnode.database import Database
from dicomnode.settings import Settings


class Level(StrEnum):
    """How bad it is: a failure needs a person now, a warning soon."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. advice: what to do; empty where nothing is to be done. Never a patient's data."""

    check: str
    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Visit:
    """What is examined, and when. is_deep: every file is read."""

    settings: Settings
    now: datetime
    is_deep: bool = False


@dataclass(frozen=True)
class Stores:
    """The database and the archive, open, for the checks that look into them."""

    database: Database
    archive: Archive


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, advice: str = "") -> Finding:
    """Somebody should know."""
    return Finding(check, Level.WARNING, text, advice)


def failure(check: str, text: str, advice: str) -> Finding:
    """Something does not work."""
    return Finding(check, Level.FAILURE, text, advice)

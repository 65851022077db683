"""How values are written on pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydicom.uid import UID

from dicomnode.web import advice


def short(moment: datetime | None) -> str:
    """A time in UTC to the second, or nothing."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def tail(uid: str) -> str:
    """The end of a UID, by which people tell them apart."""
    return uid if len(uid) <= 12 else f"…{uid[-8:]}"


def ago(moment: datetime, now: datetime) -> str:
    """How long before, or until: `5 s ago`, `in 3 min`."""
    seconds = (now - moment).total_seconds()
    text = span(abs(seconds))
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def span(seconds: float) -> str:
    """A duration in its largest unit: `45 s`, `12 min`, `3 h`, `2 d`."""
    whole = int(seconds)
    units = ((1, "s", 60), (60, "min", 3600), (3600, "h", 48 * 3600))
    length, unit = next(((length, unit) for length, unit, end in units if whole < end), (86400, "d"))
    return f"{whole // length} {unit}"


def lasting(since: datetime, now: datetime) -> str:
    """For how long something lasts: `for 3 min`."""
    return f"for {span((now - since).total_seconds())}"


def iso(moment: datetime) -> str:
    """As `<time datetime>` and the API have it."""
    return moment.isoformat(timespec="seconds")


def acquired(text: str) -> str:
    """`YYYYMMDDHHMMSS`, possibly shorter, as people write it; anything else as it is."""
    if not text.isdigit() or len(text) < 8:
        return text
    day = f"{text[:4]}-{text[4:6]}-{text[6:8]}"
    return f"{day} {text[8:10]}:{text[10:12]}" if len(text) >= 12 else day


def kind(sop_class_uid: str) -> str:
    """The name of a SOP class, short where the node makes it."""
    name = UID(sop_class_uid).name
    return {"Segmentation Storage": "SEG", "Comprehensive 3D SR Storage": "SR"}.get(name, name.removesuffix(" Storage"))


def image_count(count: int, expected: int | None) -> str:
    """How many images there are, and of how many."""
    return str(count) if expected is None else f"{count} of {expected}"


FILTERS: dict[str, Callable[..., Any]] = {
    "acquired": acquired,
    "ago": ago,
    "alarm_advice": advice.on_alarm,
    "delivery_advice": advice.on_delivery,
    "image_count": image_count,
    "iso": iso,
    "job_advice": advice.on_job,
    "kind": kind,
    "lasting": lasting,
    "look": advice.look,
    "path": lambda text: quote(str(text), safe=""),
    "short": short,
    "tail": tail,
}
"""By the name that templates use."""

"""/health: whether the node can do its work. Who is not signed in learns only whether."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from dicomnode.errors import Unavailable
from dicomnode.store import listing, presence
from dicomnode.store.presence import SignOfLife
from dicomnode.web.accounts import Role
from dicomnode.web.sessions import Visitor
from dicomnode.web.signin import identify
from dicomnode.web.site import Here, Site

router = APIRouter(tags=["health"])

FRESH = timedelta(seconds=45)
"""A process that said nothing for longer gives no sign of life."""

_STANDS_STILL = timedelta(minutes=15)
_NEEDED = ("receiver", "assembler", "worker", "courier", "housekeeper")


@dataclass(frozen=True)
class Check:
    """Something that the node needs. detail: what is known of it; where it is not ok, the reason."""

    name: str
    is_ok: bool
    detail: str


def examine(here: Site) -> list[Check]:
    """Look at everything that the node needs to go on."""
    now = here.clock()
    try:
        with here.database.read() as connection:
            signs, waiting_since = presence.signs(connection), listing.oldest_due(connection)
            at_work = listing.count_jobs(connection).get("running", 0)
    except Unavailable as error:
        return [Check("database", is_ok=False, detail=str(error)), _check_disk(here)]
    checks = [Check("database", is_ok=True, detail="answers"), _check_disk(here), *check_signs(signs, now)]
    if waiting_since and now - waiting_since > _STANDS_STILL and not at_work:
        minutes = int((now - waiting_since) / timedelta(minutes=1))
        checks.append(Check("queue", is_ok=False, detail=f"a job waits for {minutes} minutes and none is at work"))
    else:
        checks.append(Check("queue", is_ok=True, detail="moves on"))
    return checks


def check_signs(signs: Sequence[SignOfLife], now: datetime) -> Iterator[Check]:
    """Whether each actor that the node needs lives somewhere."""
    for actor in _NEEDED:
        seen = [sign for sign in signs if sign.actor == actor]
        if not seen:
            yield Check(actor, is_ok=False, detail="does not run")
            continue
        last = max(seen, key=lambda sign: sign.seen_at)
        living = [sign for sign in seen if now - sign.seen_at <= FRESH]
        where = ", ".join(sign.process for sign in living)
        gone = f"no sign of life since {last.seen_at:%Y-%m-%d %H:%M:%S} UTC ({last.process})"
        yield Check(actor, is_ok=bool(living), detail=where if living else gone)


def _check_disk(here: Site) -> Check:
    room = here.archive.room_bytes
    return Check("disk", is_ok=room > 0, detail=f"{room / 1e9:.1f} GB free above the reserve")


@router.get("/health/live", summary="Whether the web interface answers")
def tell_live() -> dict[str, str]:
    """Whether this process lives; whether the node can work is told by `/health`."""
    return {"status": "ok"}


@router.get("/health", summary="Whether the node can do its work", responses={503: {"description": "It cannot"}})
@router.get("/health/ready", include_in_schema=False)
def tell_ready(here: Here, visitor: Annotated[Visitor | None, Depends(identify)]) -> JSONResponse:
    """200 or 503; who is signed in is told what was looked at."""
    checks = examine(here)
    is_ok = all(check.is_ok for check in checks)
    content: dict[str, Any] = {"status": "ok" if is_ok else "not ok"}
    if visitor and visitor.role.may(Role.MONITOR):
        content["checks"] = [{"name": one.name, "ok": one.is_ok, "detail": one.detail} for one in checks]
    return JSONResponse(content, 200 if is_ok else 503)

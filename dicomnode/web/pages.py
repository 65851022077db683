"""The dashboard."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from dicomnode.store import queue, watch
from dicomnode.web.signin import Viewer
from dicomnode.web.site import Here, render

router = APIRouter(include_in_schema=False)


@router.get("/")
def show_overview(request: Request, here: Here, viewer: Viewer) -> Response:
    """What the node is doing, and what needs a person."""
    with here.database.read() as connection:
        alarms = watch.list_alarms(connection, 100)
        running = queue.list_jobs(connection, 20)
    return render(request, "overview.html", viewer, alarms=alarms, running=running)

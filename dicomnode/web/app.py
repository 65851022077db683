"""What is served, and where."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig

from dicomnode.web import actions, api, health, metrics, pages, patients, signin, stow, viewer
from dicomnode.web.accounts import Accounts, Role
from dicomnode.web.faults import add_faults
from dicomnode.web.security import Guard
from dicomnode.web.sessions import Sessions
from dicomnode.web.site import FOLDER, Site, make_templates

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dicomnode.archive import Archive
    from dicomnode.auditor import Auditor
    from dicomnode.database import Database
    from dicomnode.settings import Settings

_MOST_BYTES = 64 * 1024  # of a form; what takes more says so in its own route
_SILENT: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}  # paths name patients

FOR_VIEWERS: tuple[APIRouter, ...] = (
    pages.router, actions.router, patients.router, viewer.router, api.router, api.pages,
)  # fmt: skip
"""What nobody gets to who may not look."""


def create_app(
    settings: Settings, database: Database, archive: Archive, auditor: Auditor, clock: Callable[[], datetime]
) -> FastAPI:
    """The web interface of a node, to be run by uvicorn. Raises Misconfigured: the file of users cannot be used."""
    web = settings.web
    accounts = Accounts(web.users) if web.users else None
    sessions = Sessions(timedelta(minutes=web.session_minutes))
    app = FastAPI(
        title="dicomnode",
        docs_url=None,  # those pages are fetched from the internet
        redoc_url=None,
        openapi_url=None,
        max_body_size=_MOST_BYTES,
        telemetry=_SILENT,
    )
    app.state.site = Site(settings, database, archive, auditor, clock, accounts, sessions)
    app.state.desk = stow.Desk(app.state.site)
    app.state.templates = make_templates()
    any_name = not web.is_loopback and not web.names
    app.add_middleware(Guard, names=web.names, is_https=web.is_https, any_name=any_name)
    add_faults(app)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    for router in (signin.router, health.router, metrics.router, stow.router):
        app.include_router(router)
    for router in FOR_VIEWERS:
        app.include_router(router, dependencies=[Depends(signin.Needs(Role.VIEWER))])
    return app

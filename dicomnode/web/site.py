"""What every handler of the web interface works with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from dicomnode.archive import Archive
from dicomnode.auditor import Auditor
from dicomnode.database import Database
from dicomnode.settings import Settings
from dicomnode.store import subjects
from dicomnode.web import filters
from dicomnode.web.accounts import Accounts
from dicomnode.web.overlay import Lightbox
from dicomnode.web.sessions import Sessions, Sightings, Throttle, Visitor

FOLDER = Path(__file__).parent

NAVIGATION = (
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/patients", "Patients"),
    ("/deliveries", "Deliveries"),
    ("/pulls", "Pulls"),
    ("/refusals", "Refusals"),
)
"""Path and name of each page that every page leads to."""


@dataclass(frozen=True)
class Site:
    """The node as the web interface sees it.

    accounts: None where the site has no users: then everybody is an operator, and only this machine gets here.
    """

    settings: Settings
    database: Database
    archive: Archive
    auditor: Auditor
    clock: Callable[[], datetime]
    accounts: Accounts | None
    sessions: Sessions
    throttle: Throttle = field(default_factory=Throttle)
    sightings: Sightings = field(default_factory=Sightings)
    lightbox: Lightbox = field(default_factory=Lightbox)

    def saw(self, visitor: Visitor, job_ids: Collection[int]) -> None:
        """Record that a person was shown patient data or images of these jobs; of each study once in a while."""
        now = self.clock()
        with self.database.read() as connection:
            studies = set(subjects.of_jobs(connection, job_ids).values())
        for subject in studies:
            if self.sightings.is_new((visitor.name, visitor.address, subject.study_instance_uid), now):
                self.auditor.viewed(visitor.name, visitor.address, subject)

    def gave(self, visitor: Visitor, url: str, job_ids: Collection[int]) -> None:
        """Record that a person fetched a file that holds data of these jobs."""
        with self.database.read() as connection:
            about = set(subjects.of_jobs(connection, job_ids).values())
        self.auditor.exported(visitor.name, url, about, visitor.address)


async def _here(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


Here = Annotated[Site, Depends(_here)]
"""The site, for a handler's parameter."""


def render(request: Request, template: str, visitor: Visitor | None, **context: Any) -> Response:
    """A page. visitor: None where nobody is signed in."""
    site: Site = request.app.state.site
    environment: Environment = request.app.state.templates
    shown = {"request": request, "visitor": visitor, "site": site, "now": site.clock(), **context}
    return Response(environment.get_template(template).render(shown), media_type="text/html; charset=utf-8")


def make_templates() -> Environment:
    """Jinja, with the filters of `filters`; what is printed is escaped, and a name that is not there is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters.FILTERS)
    environment.globals["navigation"] = NAVIGATION
    return environment

"""/api/v1: all that the pages show, as JSON. It only reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from dicomnode.arrivals import Patient
from dicomnode.deliveries import DeliveryState
from dicomnode.history import Entry, VolumePoint, timeline
from dicomnode.jobs import JobState
from dicomnode.pulling import PullState
from dicomnode.store import history, inventory, listing, outbox, pulls, queue, viewing, watch
from dicomnode.store.history import KnownPatient
from dicomnode.store.listing import ArrivingSeries, ListedJob, MadeResult
from dicomnode.store.outbox import ListedDelivery
from dicomnode.store.pulls import ListedPull
from dicomnode.store.queue import TimelineEntry
from dicomnode.store.viewing import Labels
from dicomnode.store.watch import Alarm, Refusal
from dicomnode.web.health import Check, examine
from dicomnode.web.signin import Viewer
from dicomnode.web.site import Here, render


@dataclass(frozen=True)
class Problem:
    """What went wrong (RFC 9457). detail: why, and where it is a field, which."""

    type: str
    title: str
    status: int
    detail: str


_PROBLEM = {"application/problem+json": {"schema": TypeAdapter(Problem).json_schema()}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"description": "Nobody is signed in", "content": _PROBLEM},
    404: {"description": "There is none", "content": _PROBLEM},
    422: {"description": "A parameter does not fit", "content": _PROBLEM},
    503: {"description": "The database is away", "content": _PROBLEM},
}

router = APIRouter(prefix="/api/v1", responses=_PROBLEMS)
pages = APIRouter(include_in_schema=False)

Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.")]
Before = Annotated[int | None, Query(ge=1, description="Those with a smaller id, for the next page.")]


@dataclass(frozen=True)
class Overview:
    """What the node is doing. jobs: by state. deliveries: by destination and state."""

    jobs: dict[str, int]
    deliveries: dict[str, dict[str, int]]
    arriving: list[ArrivingSeries]
    alarms: list[Alarm]
    checks: list[Check]


@dataclass(frozen=True)
class JobReport:
    """Everything about a job."""

    job: ListedJob
    labels: Labels
    measurement: VolumePoint | None
    results: list[MadeResult]
    deliveries: list[ListedDelivery]
    timeline: list[TimelineEntry]


@router.get("/overview", summary="What the node is doing", tags=["node"])
def get_overview(here: Here, _: Viewer) -> Overview:
    """Counts, what arrives, alarms and checks."""
    with here.database.read() as connection:
        return Overview(
            jobs=listing.count_jobs(connection),
            deliveries=inventory.deliveries_by_destination(connection),
            arriving=listing.arriving(connection, 100),
            alarms=watch.list_alarms(connection, 100),
            checks=examine(here),
        )


@router.get("/jobs", summary="The newest jobs, newest first", tags=["jobs"])
def get_jobs(
    here: Here,
    _: Viewer,
    *,
    state: Annotated[list[JobState] | None, Query(description="In one of these states.")] = None,
    text: Annotated[str, Query(description="Part of the series' description or UID.")] = "",
    limit: Limit = 50,
    before: Before = None,
) -> list[ListedJob]:
    """Without patients."""
    with here.database.read() as connection:
        return listing.list_jobs(connection, limit, states=state or (), text=text, before=before)


@router.get("/jobs/{job_id}", summary="One job, with its timeline", tags=["jobs"])
def get_job(here: Here, viewer: Viewer, job_id: int) -> JobReport:
    """With the patient it is of, so that the look is recorded on the audit trail."""
    with here.database.read() as connection:
        job = listing.listed_job(connection, job_id)
        report = JobReport(
            job=job,
            labels=viewing.labels(connection, job.series_instance_uid),
            measurement=history.of_job(connection, job_id),
            results=listing.results_of(connection, job_id),
            deliveries=outbox.list_deliveries(connection, 1000, job_id=job_id),
            timeline=queue.timeline(connection, job_id),
        )
    here.saw(viewer, [job_id])
    return report


@router.get("/deliveries", summary="The newest deliveries, newest first", tags=["deliveries"])
def get_deliveries(
    here: Here,
    _: Viewer,
    *,
    state: Annotated[list[DeliveryState] | None, Query(description="In one of these states.")] = None,
    destination: Annotated[str | None, Query(description="To this destination.")] = None,
    limit: Limit = 50,
    before: Before = None,
) -> list[ListedDelivery]:
    """Without patients."""
    with here.database.read() as connection:
        return outbox.list_deliveries(connection, limit, states=state or (), destination=destination, before=before)


@router.get("/pulls", summary="What the rules that pull found, the last to move first", tags=["pulls"])
def get_pulls(
    here: Here,
    _: Viewer,
    state: Annotated[list[PullState] | None, Query(description="In one of these states.")] = None,
    limit: Limit = 50,
) -> list[ListedPull]:
    """Without patients."""
    with here.database.read() as connection:
        return pulls.list_pulls(connection, limit, state or ())


@router.get("/refusals", summary="What peers were refused, newest first", tags=["node"])
def get_refusals(here: Here, _: Viewer, limit: Limit = 50, skip: Annotated[int, Query(ge=0)] = 0) -> list[Refusal]:
    """skip: leave out so many that are newer."""
    with here.database.read() as connection:
        return watch.list_refusals(connection, limit, skip)


@router.get("/alarms", summary="Alarms, newest first", tags=["node"])
def get_alarms(
    here: Here,
    _: Viewer,
    limit: Limit = 50,
    every: Annotated[bool, Query(description="Those that are over, too.")] = False,
) -> list[Alarm]:
    """Those that are on."""
    with here.database.read() as connection:
        return watch.list_alarms(connection, limit, only_on=not every)


@router.get("/patients", summary="Patients with measurements", tags=["patients"])
def get_patients(
    here: Here, viewer: Viewer, limit: Limit = 50, search: Annotated[str, Query(description="Part of ID or name.")] = ""
) -> list[KnownPatient]:
    """The latest to be acquired first; the look is recorded on the audit trail."""
    with here.database.read() as connection:
        found = history.patients(connection, search, limit)
    here.saw(viewer, [one.job_id for one in found])
    return found


@router.get("/volumes", summary="A patient's volumes over time", tags=["patients"])
def get_volumes(here: Here, viewer: Viewer, patient_id: str, issuer: str = "") -> list[Entry]:
    """In order of acquisition, with the changes; the look is recorded on the audit trail."""
    with here.database.read() as connection:
        points = history.points(connection, Patient(patient_id, issuer))
    here.saw(viewer, [point.job_id for point in points if point.job_id is not None])
    return timeline(points, here.settings.history)


@router.get("/openapi.json", include_in_schema=False)
def get_openapi(request: Request, _: Viewer) -> dict[str, Any]:
    """The description of this API, for programs."""
    return describe(request)


@pages.get("/api")
def show_api(request: Request, viewer: Viewer) -> Response:
    """The description of the API, for people."""
    return render(request, "api.html", viewer, description=describe(request))


def describe(request: Request) -> dict[str, Any]:
    """OpenAPI 3.1 of /api/v1, /health and /metrics."""
    description: dict[str, Any] = request.app.openapi()
    return description

"""The dashboard: what arrives, is measured and delivered, and what needs a person."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from dicomnode.deliveries import STUCK, DeliveryState
from dicomnode.jobs import JobState
from dicomnode.pulling import PullState
from dicomnode.store import history, inventory, listing, outbox, pulls, queue, viewing, watch
from dicomnode.web import health
from dicomnode.web.signin import Viewer
from dicomnode.web.site import Here, render

router = APIRouter(include_in_schema=False)

_SHOWN = 12  # rows of each table on the overview
_PAGE = 50
_TROUBLE = (JobState.FAILED, JobState.REFUSED)
_LATELY = timedelta(days=7)

Before = Annotated[int | None, Query(ge=1)]


@router.get("/")
def show_overview(request: Request, here: Here, viewer: Viewer) -> Response:
    """What the node is doing, and what needs a person."""
    with here.database.read() as connection:
        troubled = listing.list_jobs(connection, _SHOWN, states=_TROUBLE)
        shown = {
            "alarms": watch.list_alarms(connection, 100),
            "arriving": listing.arriving(connection, _SHOWN),
            "running": listing.list_jobs(connection, _SHOWN, states=[JobState.RUNNING]),
            "queued": listing.list_jobs(connection, _SHOWN, states=[JobState.QUEUED]),
            "done": listing.list_jobs(connection, _SHOWN, states=[JobState.DONE]),
            "counts": listing.count_jobs(connection),
            "destinations": inventory.deliveries_by_destination(connection),
        }
    recent = [job for job in troubled if here.clock() - job.updated_at < _LATELY]
    checks = health.examine(here)
    return render(request, "overview.html", viewer, **shown, troubled=recent, checks=checks, stuck_states=STUCK)


@router.get("/jobs")
def list_jobs(
    request: Request,
    here: Here,
    viewer: Viewer,
    *,
    state: JobState | None = None,
    text: str = "",
    before: Before = None,
) -> Response:
    """The newest jobs. before: those with a smaller number."""
    with here.database.read() as connection:
        states = [state] if state else []
        jobs = listing.list_jobs(connection, _PAGE + 1, states=states, text=text.strip(), before=before)
        sent = outbox.delivery_states(connection, [job.id for job in jobs])
    chosen = {"state": state or "", "text": text, "before": before}
    shown = {"jobs": jobs[:_PAGE], "has_more": len(jobs) > _PAGE, "sent": sent}
    return render(request, "jobs.html", viewer, **shown, chosen=chosen, states=list(JobState))


@router.get("/jobs/{job_id}")
def show_job(request: Request, here: Here, viewer: Viewer, job_id: int) -> Response:
    """One job, with every move it made."""
    with here.database.read() as connection:
        job, listed = queue.job(connection, job_id), listing.listed_job(connection, job_id)
        shown = {
            "labels": viewing.labels(connection, job.series_instance_uid),
            "point": history.of_job(connection, job_id),
            "results": listing.results_of(connection, job_id),
            "deliveries": outbox.list_deliveries(connection, 1000, job_id=job_id),
            "moves": queue.timeline(connection, job_id),
            "newest": queue.newest(connection, job.series_instance_uid),
        }
    here.saw(viewer, [job_id])
    return render(request, "job.html", viewer, job=job, listed=listed, **shown)


@router.get("/deliveries")
def list_deliveries(
    request: Request,
    here: Here,
    viewer: Viewer,
    *,
    state: DeliveryState | None = None,
    destination: str = "",
    before: Before = None,
) -> Response:
    """The newest deliveries. before: those with a smaller number."""
    with here.database.read() as connection:
        deliveries = outbox.list_deliveries(
            connection,
            _PAGE + 1,
            states=[state] if state else [],
            destination=destination or None,
            before=before,
        )
        destinations = inventory.deliveries_by_destination(connection)
    chosen = {"state": state or "", "destination": destination, "before": before}
    shown = {"deliveries": deliveries[:_PAGE], "has_more": len(deliveries) > _PAGE, "destinations": destinations}
    return render(request, "deliveries.html", viewer, **shown, chosen=chosen, states=list(DeliveryState))


@router.get("/pulls")
def list_pulls(request: Request, here: Here, viewer: Viewer, state: PullState | None = None) -> Response:
    """What the rules that pull found in archives, as it last moved."""
    with here.database.read() as connection:
        found = pulls.list_pulls(connection, _PAGE, [state] if state else ())
    return render(request, "pulls.html", viewer, pulls=found, chosen=state or "", states=list(PullState))


@router.get("/refusals")
def list_refusals(request: Request, here: Here, viewer: Viewer, skip: Annotated[int, Query(ge=0)] = 0) -> Response:
    """What peers were denied."""
    with here.database.read() as connection:
        refusals = watch.list_refusals(connection, _PAGE + 1, skip)
    older = skip + _PAGE if len(refusals) > _PAGE else None
    return render(request, "refusals.html", viewer, refusals=refusals[:_PAGE], skip=skip, older=older)

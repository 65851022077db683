"""The overlay viewer: all slices of a series with the outline of what was found, and the voxels of one slice at a time.

A browser gets CT numbers and paints them itself, so that another window needs no other picture.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from dicomnode.errors import Refused
from dicomnode.history import VolumePoint
from dicomnode.jobs import Job
from dicomnode.store import history, queue, viewing
from dicomnode.web.overlay import Overlay, read_slice
from dicomnode.web.sessions import Visitor
from dicomnode.web.signin import Viewer
from dicomnode.web.site import Here, Site, render

router = APIRouter(include_in_schema=False)

_AGREES = 1e-3  # as a share: nothing but rounding may part them


@dataclass(frozen=True)
class Window:
    """A range of CT numbers that is spread from black to white, HU (PS3.3 C.11.2)."""

    name: str
    level: int
    width: int


WINDOWS = (
    Window("Soft tissue", 40, 400),
    Window("Pancreas", 80, 250),
    Window("Lung", -600, 1500),
    Window("Bone", 400, 1800),
)


@dataclass(frozen=True)
class _Exhibit:
    """A job as it is shown. point: None before it is measured. problem: why there is no overlay where there is none."""

    job: Job
    labels: viewing.Labels
    point: VolumePoint | None
    overlay: Overlay | None
    problem: str


@router.get("/jobs/{job_id}/overlay")
def show_overlay(request: Request, here: Here, viewer: Viewer, job_id: int) -> Response:
    """The viewer's page."""
    exhibit = _find(here, viewer, job_id)
    slices = exhibit.overlay.slices if exhibit.overlay else ()
    marked = [number for number, one in enumerate(slices, 1) if one.outline]
    start = max(marked, key=lambda number: slices[number - 1].area_mm2, default=len(slices) // 2 + 1)
    shown = {"exhibit": exhibit, "windows": WINDOWS, "marked": marked, "start": start}
    return render(request, "overlay.html", viewer, **shown)


@router.get("/jobs/{job_id}/overlay/slices")
def list_slices(here: Here, viewer: Viewer, job_id: int) -> dict[str, Any]:
    """What the viewer's script has to know of each slice."""
    overlay = _open(here, viewer, job_id)
    slices = [
        {"name": one.plane.name, "place": one.place, "area_mm2": one.area_mm2, "outline": one.outline}
        for one in overlay.slices
    ]
    size = {"rows": overlay.rows, "columns": overlay.columns, "spacing_mm": overlay.spacing_mm}
    return {**size, "slices": slices}


@router.get("/jobs/{job_id}/overlay/slices/{number}")
def send_slice(request: Request, here: Here, viewer: Viewer, job_id: int, number: int) -> Response:
    """The CT numbers of a slice, counted from 1; see `overlay.read_slice`."""
    slices = _open(here, viewer, job_id).slices
    if not 1 <= number <= len(slices):
        raise HTTPException(404, f"there is no slice {number}")
    voxels, headers = read_slice(slices[number - 1].plane), {}
    if "gzip" in request.headers.get("accept-encoding", ""):
        voxels, headers = gzip.compress(voxels, 1), {"Content-Encoding": "gzip"}
    return Response(voxels, headers=headers, media_type="application/octet-stream")


def _open(here: Site, viewer: Visitor, job_id: int) -> Overlay:
    exhibit = _find(here, viewer, job_id)
    if exhibit.overlay is None:
        raise HTTPException(410, exhibit.problem)
    return exhibit.overlay


def _find(here: Site, viewer: Visitor, job_id: int) -> _Exhibit:
    with here.database.read() as connection:
        job = queue.job(connection, job_id)
        labels = viewing.labels(connection, job.series_instance_uid)
        point = history.of_job(connection, job_id)
        sources = viewing.sources(connection, job)
    here.saw(viewer, [job_id])
    try:
        overlay, problem = _overlay(here, sources, point), ""
    except Refused as error:
        overlay, problem = None, str(error)
    return _Exhibit(job, labels, point, overlay, problem)


def _overlay(here: Site, sources: viewing.Sources, point: VolumePoint | None) -> Overlay:
    """Raises Refused where it cannot be shown, or is not what was measured."""
    if sources.removed:
        count = "1 file was" if sources.removed == 1 else f"{sources.removed} files were"
        raise Refused(f"{count} removed by retention; send the series again to look at it")
    volume_ml = point.volume_ml if point else None
    mask = here.archive.path(sources.segmentation) if sources.segmentation and volume_ml is not None else None
    overlay = here.lightbox.show([here.archive.path(image) for image in sources.images], mask)
    if volume_ml is not None and not math.isclose(overlay.volume_ml, volume_ml, rel_tol=_AGREES):
        raise Refused(f"the stored mask holds {overlay.volume_ml:.1f} mL, measured were {volume_ml:.1f} mL")
    return overlay

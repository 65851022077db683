"""Patients and their volumes over time, as a table, a plot, and files of the same.

A page of a patient is found by the number of one of its jobs, so that no PatientID stands in an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from dicomnode import cohort
from dicomnode.history import BANDS_SOURCE, REFERENCES, Entry, Standing, tabulate, timeline
from dicomnode.store import Unknown, history, queue, viewing
from dicomnode.store.history import Merge
from dicomnode.store.viewing import Labels
from dicomnode.web import plot
from dicomnode.web.sessions import Visitor
from dicomnode.web.signin import Viewer
from dicomnode.web.site import Here, Site, render

router = APIRouter(include_in_schema=False)

_MOST_LISTED = 100


@dataclass(frozen=True)
class _Record:
    """A patient with everything measured of them. merges: those in force between this patient and others."""

    job_id: int
    labels: Labels
    merges: Sequence[Merge]
    entries: Sequence[Entry]

    @property
    def job_ids(self) -> list[int]:
        """Of all that was measured here."""
        return [entry.point.job_id for entry in self.entries if entry.point.job_id is not None]


@router.get("/patients")
def list_patients(
    request: Request, here: Here, viewer: Viewer, search: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Those with measurements, the last scanned first, and a search of PatientID and name."""
    with here.database.read() as connection:
        found = history.patients(connection, search.strip(), _MOST_LISTED + 1)
    here.saw(viewer, [one.job_id for one in found])
    listed, more = found[:_MOST_LISTED], len(found) > _MOST_LISTED
    return render(request, "patients.html", viewer, search=search, patients=listed, more=more)


@router.get("/patients/{job_id}")
def show_patient(request: Request, here: Here, viewer: Viewer, job_id: int) -> Response:
    """The patient of a job: plot, volumes that count, what does not count, cohorts."""
    record = _find(here, viewer, job_id)
    counting = [(number, one) for number, one in enumerate(record.entries) if one.standing is Standing.COUNTS]
    others = [(number, one) for number, one in enumerate(record.entries) if one.standing is not Standing.COUNTS]
    shown = {"record": record, "counting": counting, "others": others, "bands": here.settings.history}
    drawn = {"plot": plot.lay_out(record.entries, here.settings.history), "frame": plot}
    literature = {"references": REFERENCES, "bands_source": BANDS_SOURCE}
    return render(request, "patient.html", viewer, **shown, **drawn, **literature)


@router.get("/patients/{job_id}/volumes.csv")
def send_table(request: Request, here: Here, viewer: Viewer, job_id: int) -> Response:
    """The table, a row for each result: the same as `dicomnode volumes --csv` writes."""
    record = _find(here, viewer, job_id)
    here.gave(viewer, str(request.url), record.job_ids)
    content = cohort.to_csv([tabulate(entry) for entry in record.entries])
    return _file(content.encode(), "text/csv; charset=utf-8", f"volumes-{job_id}.csv")


@router.get("/patients/{job_id}/volumes.png")
def send_picture(request: Request, here: Here, viewer: Viewer, job_id: int) -> Response:
    """The plot: the same as `dicomnode volumes --png` draws."""
    # Imported here: drawing takes a second that the other pages need not wait for.
    from dicomnode.picture import draw_history

    record, buffer = _find(here, viewer, job_id), BytesIO()
    here.gave(viewer, str(request.url), record.job_ids)
    draw_history(record.entries, here.settings.history, buffer)
    return _file(buffer.getvalue(), "image/png", f"volumes-{job_id}.png")


def _file(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _find(here: Site, viewer: Visitor, job_id: int) -> _Record:
    with here.database.read() as connection:
        patient = viewing.labels(connection, queue.job(connection, job_id).series_instance_uid).patient
        if not patient.id:
            raise Unknown(f"job {job_id} has no PatientID: nobody knows to whose history it belongs")
        family = history.everyone(connection, patient)
        labels = viewing.labels_of(connection, family[0])
        merges = [one for one in history.list_merges(connection) if one.patient in family]
        points = history.points(connection, patient)
    record = _Record(job_id, labels, merges, timeline(points, here.settings.history))
    here.saw(viewer, record.job_ids)
    return record

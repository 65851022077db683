"""What a person may change: a job or a delivery once more, a result invalid or valid again. Nothing else."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Response
from fastapi.responses import RedirectResponse

from dicomnode.store import history, outbox, queue, subjects
from dicomnode.store.history import Act
from dicomnode.web.signin import Operator, Signature
from dicomnode.web.site import Here

router = APIRouter(include_in_schema=False)


def _correction(here: Here, by: Signature, reason: Annotated[str, Form(max_length=500)]) -> Act:
    try:
        return Act(by, " ".join(reason.split()), here.clock())
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


Correction = Annotated[Act, Depends(_correction)]
"""Who corrects a result, and why: the fields of its form."""


@router.post("/jobs/{job_id}/requeue")
def requeue_job(here: Here, by: Signature, job_id: int) -> Response:
    """Measure a series again."""
    now = here.clock()
    with here.database.begin() as connection:
        job = queue.requeue(connection, job_id, now, by)
        outbox.cancel_superseded(connection, job.series_instance_uid, now)
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/deliveries/{delivery_id}/retry")
def retry_delivery(here: Here, by: Signature, delivery_id: int) -> Response:
    """Send a result once more, at once and with all attempts forgotten."""
    with here.database.begin() as connection:
        outbox.requeue(connection, delivery_id, f"by {by}", here.clock())
        job_id = outbox.delivery(connection, delivery_id).job_id
    return RedirectResponse(f"/jobs/{job_id}#deliveries", 303)


@router.post("/jobs/{job_id}/invalidate")
def invalidate_result(here: Here, operator: Operator, act: Correction, job_id: int) -> Response:
    """Mark a result as invalid: it stays, and no longer counts in the history."""
    with here.database.begin() as connection:
        history.invalidate(connection, job_id, act)
        here.auditor.corrected(act.by, operator.address, subjects.of_jobs(connection, [job_id])[job_id])
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/jobs/{job_id}/restore")
def restore_result(here: Here, operator: Operator, act: Correction, job_id: int) -> Response:
    """Take the mark off: the result counts again."""
    with here.database.begin() as connection:
        history.restore(connection, job_id, act)
        here.auditor.corrected(act.by, operator.address, subjects.of_jobs(connection, [job_id])[job_id])
    return RedirectResponse(f"/jobs/{job_id}", 303)

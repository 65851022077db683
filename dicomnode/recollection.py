"""What the history holds from before an analysis, as its report tells it.

A report says what was known when it was made. Run again with other priors, or by another model, a job makes another
report, which names the one before as its predecessor: an *edition*. Run again with the same, it makes the same object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from dicomnode.arrivals import Patient
from dicomnode.database import Connection
from dicomnode.history import BANDS_SOURCE, Change, Standing, VolumePoint, change, limits, timeline
from dicomnode.jobs import Job
from dicomnode.sections import HistorySettings
from dicomnode.store import history, priors
from dicomnode.store.outbox import Measured
from dicomnode.store.priors import FoundReport
from models.card import Card
from pipeline import VERSION
from pipeline.priors import Change as Changed
from pipeline.priors import Prior, Priors, Report, Verdict


def locate(connection: Connection, held: Job, measured: Measured, now: datetime) -> VolumePoint:
    """What a running job measured, as a point in the history of its patient."""
    return replace(
        priors.unmeasured(connection, held, now),
        volume_ml=measured.volume_ml if measured.found else None,
        confidence=measured.confidence,
        flags=measured.flags,
        model_name=measured.model_name,
        model_version=measured.model_version,
        model_sha256=measured.model_sha256,
        repeatability_percent=measured.repeatability_percent,
        conditions=measured.conditions,
    )


def recall(connection: Connection, point: VolumePoint, bands: HistorySettings) -> Priors:
    """The volumes of the patient that count and were acquired before; none of an empty PatientID or without a date."""
    patient = Patient(point.patient_id, point.issuer_of_patient_id)
    earlier = before(point, history.points(connection, patient), bands)
    return recollect(point, earlier, priors.reports(connection, earlier), bands)


def place(connection: Connection, job_id: int, known: Priors, card: Card) -> Priors:
    """The priors with the edition that the report of a job is with them.

    A report of a release that knew no editions, whose basis is empty, told of no priors.
    """
    made = priors.editions(connection, job_id)
    wanted = {basis(known, card)} | (set() if known.volumes else {""})
    earlier = made[:-1] if made and made[-1].basis in wanted else made
    predecessor = to_report(earlier[-1]) if earlier and earlier[-1].series_instance_uid else None
    return replace(known, edition=len(earlier) + 1, predecessor=predecessor)


def basis(known: Priors, card: Card) -> str:
    """What tells the editions of a report apart: the priors, the model, the pipeline."""
    return hashlib.sha256(chr(0).join((known.digest, card.sha256, card.flips, VERSION)).encode()).hexdigest()


def before(point: VolumePoint, points: Sequence[VolumePoint], bands: HistorySettings) -> list[VolumePoint]:
    """The points that count and were acquired before a point of another series, oldest first."""
    if point.moment is None:
        return []
    return [
        entry.point
        for entry in timeline(points, bands)
        if entry.standing is Standing.COUNTS
        and entry.point.series_instance_uid != point.series_instance_uid
        and entry.point.moment is not None
        and entry.point.moment < point.moment
    ]


def recollect(
    point: VolumePoint,
    earlier: Sequence[VolumePoint],
    reports: Mapping[VolumePoint, FoundReport],
    bands: HistorySettings,
) -> Priors:
    """The earlier points as priors of a point that is being measured; its volume may be None.

    reports: those of the earlier points of which one is known.
    """
    volumes = [_prior(one, point, reports.get(one), bands) for one in earlier]
    if not volumes:
        return Priors(acquired_at=point.acquired_at if point.moment else "")
    for index, (one, following) in enumerate(pairwise(earlier), 1):
        volumes[index] = replace(volumes[index], is_joined=change(one, following, bands).is_comparable)
    return Priors(tuple(volumes), _explain(earlier, bands), point.acquired_at, limits(earlier[0], bands)[0])


def to_report(found: FoundReport) -> Report:
    """A report as results refer to it."""
    uids = (found.study_instance_uid, found.series_instance_uid, found.sop_class_uid, found.sop_instance_uid)
    return Report(*uids)


def _prior(earlier: VolumePoint, point: VolumePoint, report: FoundReport | None, bands: HistorySettings) -> Prior:
    changed = None if point.volume_ml is None else _changed(change(earlier, point, bands))
    model = f"{earlier.model_name} {earlier.model_version}"
    volume_ml = earlier.volume_ml or 0.0  # it counts, so that it has one
    where = None if report is None else to_report(report)
    return Prior(earlier.acquired_at, volume_ml, earlier.is_lower_bound, model, changed, where)


def _changed(one: Change) -> Changed:
    verdict = Verdict.NOT_COMPARABLE if one.band is None else Verdict(one.band)
    meaning = f"not comparable: {'; '.join(one.reasons)}" if one.band is None else one.band.meaning
    return Changed(one.ml, one.percent, one.days, verdict, meaning, one.differences)


def _explain(earlier: Sequence[VolumePoint], bands: HistorySettings) -> str:
    within, beyond = limits(earlier[-1], bands)
    return (
        f"Changes since the last of them: below {within:g} % within measurement error, above {beyond:g} % beyond the "
        f"expected variability. Source: {BANDS_SOURCE}"
    )

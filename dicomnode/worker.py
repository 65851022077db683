"""Worker: the third actor. It claims a job under a lease, has the pipeline measure the series, keeps what was found.

It runs in a process of its own: a fault of the accelerator or a kill for memory ends this process and nothing else, the
lease runs out, and the next worker takes the job over.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Event, Thread

from pydicom import Dataset

from dicomnode import recollection
from dicomnode.archive import RESULTS, Archive, archive_path
from dicomnode.database import Database
from dicomnode.discretion import scrub
from dicomnode.errors import Refused, Unavailable
from dicomnode.headers import read_series
from dicomnode.history import Conditions
from dicomnode.jobs import Job, JobEvent, RetryPolicy
from dicomnode.routing import ImageFacts
from dicomnode.sections import HistorySettings
from dicomnode.store import LeaseLost, outbox, queue, receiving
from models.bundle import Model
from models.card import Card
from pipeline.analyse import Findings, Options, analyse, write_page
from pipeline.errors import Exhausted
from pipeline.measure import Measurement
from pipeline.priors import NONE, Priors, Report
from pipeline.provenance import Revision
from pipeline.series import Series, open_series

log = logging.getLogger(__name__)

_TELL_S = 2.0  # how often a running job says how far it is


@dataclass(frozen=True)
class Workplace:
    """How a worker works. destinations: names of those that get every result. page: whether a page is made too.

    bands: what changes are called.
    """

    model: Model
    device: str
    batch_size: int
    lease_s: float
    retry: RetryPolicy
    destinations: tuple[str, ...]
    page: bool = False
    bands: HistorySettings = field(default_factory=HistorySettings)


class Worker:
    """Runs one job at a time."""

    def __init__(
        self,
        database: Database,
        archive: Archive,
        workplace: Workplace,
        clock: Callable[[], datetime],
        *,
        witness: Callable[[Job], None] = lambda _: None,
    ) -> None:
        """witness: told of each job whose series is about to be read."""
        self._database = database
        self._archive = archive
        self._workplace = workplace
        self._clock = clock
        self._witness = witness
        self._holder = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._progress = 0.0  # of the running job; the lease's thread writes it down

    def run(self, stop: Event, idle_s: float = 1.0) -> None:
        """Step until `stop` is set, at once while there is work; a failed step is logged and tried again."""
        while not stop.is_set():
            worked = False
            try:
                worked = self.step()
            except Exception as error:  # noqa: BLE001 - logged without the text, which may quote a patient's data
                log.error("the worker's step failed: %s", scrub(error))
            if not worked:
                stop.wait(idle_s)

    def step(self) -> bool:
        """Claim one job and bring it to an end; whether there was one."""
        now = self._clock()
        with self._database.read() as connection:
            if not queue.is_any_due(connection, now):
                return False
        with self._database.begin() as connection:
            queue.expire(connection, self._workplace.retry, now)
            held = queue.claim(connection, self._holder, now, self._workplace.lease_s)
        if held is None:
            return False
        log.info("job %d: started, attempt %d", held.id, held.attempts)
        try:
            with self._keep_lease(held):
                self._work(held)
        except LeaseLost as error:
            log.warning("%s", error)
        return True

    def _work(self, held: Job) -> None:
        try:
            self._finish(held, *self._analyse(held))
        except LeaseLost:
            raise
        except Refused as error:
            self._end(held, JobEvent.REFUSE, str(error))
        except (Exhausted, Unavailable) as error:
            self._end(held, JobEvent.POSTPONE, str(error))
        except Exception as error:  # noqa: BLE001 - a poison series must not stop the next job
            log.error("job %d failed: %s", held.id, scrub(error))
            self._end(held, JobEvent.POSTPONE, f"internal error: {type(error).__name__}")

    def _analyse(self, held: Job) -> tuple[Findings, Conditions, Dataset | None]:
        self._witness(held)
        with self._database.read() as connection:
            images = receiving.images(connection, held.series_instance_uid, held.last_instance_id)
            before = outbox.report_before(connection, held)
        files = [(self._archive.path(image.path), image.facts) for image in images]
        conditions = _conditions(files)
        series = open_series([path for path, _ in files])
        place = self._workplace
        revision = _revision(held, before, str(series.first.StudyInstanceUID))
        options = Options(
            held.created_at,
            place.device,
            place.batch_size,
            progress=self._note_progress,
            revision=revision,
            recall=partial(self._recall, held, conditions),
        )
        findings = analyse(series, place.model, options)
        return findings, conditions, self._write_page(held, series, findings, options) if place.page else None

    def _write_page(self, held: Job, series: Series, findings: Findings, options: Options) -> Dataset | None:
        """The page of a job; None where it cannot be drawn, which keeps back no volume."""
        try:
            return write_page(series, findings, options)
        except Exception as error:  # noqa: BLE001 - SEG and SR without a page are better than none
            log.error("job %d: its page cannot be drawn: %s", held.id, scrub(error))
            return None

    def _recall(self, held: Job, conditions: Conditions, measurement: Measurement) -> Priors:
        """What the history holds from before; nothing where it cannot be told, which stops no analysis."""
        try:
            with self._database.read() as connection:
                measured = _measured(self._workplace.model.card, measurement, conditions)
                point = recollection.locate(connection, held, measured, self._clock())
                known = recollection.recall(connection, point, self._workplace.bands)
                return recollection.place(connection, held.id, known, self._workplace.model.card)
        except Exception as error:  # noqa: BLE001 - a report without its priors is better than none
            log.error("job %d: its earlier volumes cannot be told: %s", held.id, scrub(error))
            return NONE

    def _finish(self, held: Job, findings: Findings, conditions: Conditions, page: Dataset | None) -> None:
        measured = _measured(findings.card, findings.measurement, conditions)
        with self._database.begin() as connection:  # of a job that was superseded meanwhile not even a file is left
            queue.check_lease(connection, held.id, self._holder)
        basis = recollection.basis(findings.priors, findings.card)
        made = (one for one in (findings.seg, findings.sr, page) if one is not None)
        objects = [self._keep(dataset, held, basis) for dataset in made]
        assumed = [one.text for one in findings.assumptions]
        finished = outbox.Finished(measured, assumed, objects, self._workplace.destinations)
        with self._database.begin() as connection:
            queue.check_lease(connection, held.id, self._holder)
            outbox.finish(connection, held, finished, self._clock())
        log.info("job %d: done, %d results for %d destinations", held.id, len(objects), len(finished.destinations))

    def _keep(self, dataset: Dataset, held: Job, basis: str) -> outbox.StoredResult:
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        uid = str(dataset.SOPInstanceUID)
        path = archive_path(RESULTS, held.series_instance_uid, uid, digest)
        self._archive.keep(path, content)
        return outbox.StoredResult(str(dataset.SOPClassUID), uid, str(dataset.SeriesInstanceUID), path, digest, basis)

    def _end(self, held: Job, event: JobEvent, reason: str) -> None:
        now = self._clock()
        with self._database.begin() as connection:
            queue.check_lease(connection, held.id, self._holder)
            if event is JobEvent.REFUSE:
                queue.refuse(connection, held, reason, now)
            else:
                queue.put_back(connection, held, (event, reason), self._workplace.retry, now)
        log.warning("job %d: %s: %s", held.id, event, reason)

    def _note_progress(self, share: float) -> None:
        self._progress = share

    @contextmanager
    def _keep_lease(self, held: Job) -> Iterator[None]:
        """Renew the lease from a thread of its own while the job runs."""
        over = Event()
        self._progress = 0.0
        thread = Thread(target=self._renew_until, args=(held, over), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _renew_until(self, held: Job, over: Event) -> None:
        while not over.wait(min(_TELL_S, self._workplace.lease_s / 3)):
            try:
                with self._database.begin() as connection:
                    until = self._clock() + timedelta(seconds=self._workplace.lease_s)
                    if not queue.renew(connection, held.id, self._holder, until, self._progress):
                        return
            except Unavailable as error:
                log.warning("the lease of job %d could not be renewed: %s", held.id, error)


def _measured(card: Card, measurement: Measurement, conditions: Conditions) -> outbox.Measured:
    return outbox.Measured(
        found=measurement.voxel_count > 0,
        volume_ml=measurement.volume_ml,
        confidence=measurement.confidence,
        flags=tuple(str(flag) for flag in measurement.flags),
        model_name=card.name,
        model_version=card.version,
        model_sha256=card.sha256,
        repeatability_percent=card.repeatability_percent,
        conditions=conditions,
    )


def _conditions(files: Sequence[tuple[Path, ImageFacts]]) -> Conditions:
    facts = read_series(files)
    return Conditions(facts.manufacturer, facts.scanner, facts.kernel, str(facts.phase), facts.thickness_mm)


def _revision(held: Job, before: outbox.StoredResult | None, study_instance_uid: str) -> Revision:
    if before is None:
        return Revision(held.revision, None, held.shortfall)
    uids = (before.series_instance_uid, before.sop_class_uid, before.sop_instance_uid)
    return Revision(held.revision, Report(study_instance_uid, *uids), held.shortfall)

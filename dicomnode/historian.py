"""Historian: the actor that looks in an archive for what this product reported of a patient before.

A node that is installed from nothing so shows the years before. Each patient is asked for once, when the first series
comes; what is found is kept as figures, the reports themselves are not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from threading import Event
from typing import Protocol

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode import dicomweb, dimse
from dicomnode.arrivals import Patient
from dicomnode.audit.messages import Entity
from dicomnode.auditor import Auditor
from dicomnode.database import Database
from dicomnode.dimse import SentQuery
from dicomnode.dimse.getting import Intake
from dicomnode.discretion import scrub
from dicomnode.endpoints import SourceSettings
from dicomnode.errors import Misconfigured, Refused, Unavailable
from dicomnode.lifecycle import Backoff
from dicomnode.pulling import FoundSeries, FoundStudy, Keep, Query
from dicomnode.settings import Settings, read_secret
from dicomnode.store import priors
from pipeline.reports import NotOurs, ReadReport, read_report

log = logging.getLogger(__name__)

_BACKOFF = Backoff(60.0, 3600.0)
_LEASE = timedelta(minutes=30)
_MOST_SERIES = 200  # of reports of one patient
_MOST_REPORTS = 400
_MOST_BYTES = 4e6  # of a report; ours have a hundredth of it
_TAKEN, _NOT_TAKEN = 0x0000, 0xA700


class Archive(Protocol):
    """Where reports are looked for. Both raise Unavailable and Refused."""

    def find(self, query: Query) -> Iterator[FoundStudy]:
        """The studies that match, with their series of reports."""

    def fetch(self, series: FoundSeries, keep: Keep) -> object:
        """Have the files of a series handed to `keep`."""


@dataclass(frozen=True)
class Got:
    """By C-FIND and C-GET."""

    line: dimse.Line
    entity: Entity
    auditor: Auditor

    def find(self, query: Query) -> Iterator[FoundStudy]:
        """See `Archive`."""
        return dimse.find(self.line, query, lambda sent: self.auditor.asked(self.entity, sent))

    def fetch(self, series: FoundSeries, keep: Keep) -> object:
        """See `Archive`."""
        syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        return dimse.get(self.line, series, Intake(keep, syntaxes, _MOST_BYTES, (Comprehensive3DSRStorage,)))


@dataclass(frozen=True)
class Fetched:
    """By QIDO-RS and WADO-RS."""

    line: dicomweb.Line
    entity: Entity
    auditor: Auditor

    def find(self, query: Query) -> Iterator[FoundStudy]:
        """See `Archive`."""
        return dicomweb.find(self.line, query, self._witness)

    def fetch(self, series: FoundSeries, keep: Keep) -> object:
        """See `Archive`."""
        return dicomweb.fetch(self.line, series, keep, _MOST_BYTES)

    def _witness(self, asked: str) -> None:
        self.auditor.asked(self.entity, SentQuery(dimse.STUDY_ROOT_FIND, "QIDO-RS", asked.encode()))


class Historian:
    """Looks for reports in one archive, patient by patient."""

    def __init__(self, database: Database, archive: Archive, source: str, clock: Callable[[], datetime]) -> None:
        """source: what the archive is called in the history."""
        self._database = database
        self._archive = archive
        self._source = source
        self._clock = clock

    def run(self, stop: Event, idle_s: float = 5.0) -> None:
        """Step until `stop` is set; a failed step is logged and tried again."""
        while not stop.is_set():
            asked = False
            try:
                asked = self.step()
            except Exception as error:  # noqa: BLE001 - logged without the text, which may quote a patient's data
                log.error("looking for earlier reports failed; trying again: %s", scrub(error))
            stop.wait(0.2 if asked else idle_s)

    def step(self) -> bool:
        """Ask for one patient; whether there was one."""
        now = self._clock()
        with self._database.read() as connection:
            if priors.next_patient(connection, now) is None:
                return False
        with self._database.begin() as connection:
            patient = priors.next_patient(connection, now)
            if patient is None:
                return False
            attempts = priors.begin_search(connection, patient, now + _LEASE)
        try:
            outcome = self._search(patient)
        except (Refused, Unavailable) as error:
            until = self._clock() + timedelta(seconds=_BACKOFF.wait_s(attempts))
            with self._database.begin() as connection:
                priors.put_off_search(connection, patient, str(error), until)
            log.warning("%s: no earlier reports: %s", self._source, error)
            return True
        log.info("%s: %s", self._source, outcome)
        return True

    def _search(self, patient: Patient) -> str:
        found = [] if set(patient.id) & set("*?\\") else self._read_all(patient)  # those would match other patients
        with self._database.begin() as connection:
            new = priors.put_reports(connection, found, self._source, self._clock())
            outcome = f"{len(found)} earlier reports of a patient, {new} of them new"
            priors.end_search(connection, patient, outcome, self._clock())
        return outcome

    def _read_all(self, patient: Patient) -> list[ReadReport]:
        found: list[ReadReport] = []

        def keep(blob: bytes) -> int:
            if len(found) >= _MOST_REPORTS:
                return _NOT_TAKEN
            report = _read(blob, patient)
            if report is not None:
                found.append(report)
            return _TAKEN

        for study in list(self._archive.find(Query(patient_id=patient.id, modality="SR")))[:_MOST_SERIES]:
            for series in study.series[:_MOST_SERIES]:
                if not series.description or "AI report" in series.description:
                    self._archive.fetch(series, keep)
        return found


def _read(blob: bytes, patient: Patient) -> ReadReport | None:
    """What one of this product's reports tells of the patient; None: it is another's, of another, or odd."""
    try:
        report = read_report(dcmread(BytesIO(blob)))
    except (NotOurs, InvalidDicomError, OSError, ValueError, AttributeError, KeyError, NotImplementedError):
        return None
    whose = (report.patient_id, report.issuer_of_patient_id)
    return report if whose == (patient.id, patient.issuer) else None


def open_archive(settings: Settings, auditor: Auditor, now: datetime) -> tuple[Archive, str]:
    """The source that `priors.source` names, and its name. Raises Misconfigured."""
    described = _source(settings)
    entity, timeout_s = Entity.peer(*described.address), described.timeout_seconds
    if described.url:
        web = dicomweb.make_line(described, read_secret(described), settings.tls, timeout_s)
        return Fetched(web, entity, auditor), described.name
    peer = dimse.make_peer(described, settings.tls, now)
    return Got(dimse.Line(peer, settings.listener.ae_title, timeout_s), entity, auditor), described.name


def _source(settings: Settings) -> SourceSettings:
    for described in settings.sources:
        if described.name == settings.priors.source:
            return described
    raise Misconfigured(f"priors.source: there is no source {settings.priors.source!r}")

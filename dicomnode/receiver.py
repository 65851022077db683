"""Receiver: the first actor. 0x0000 leaves it only when the bytes are on disk and the row is committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from io import BytesIO
from threading import Event

from pydicom import Dataset, dcmread
from pynetdicom import evt

from dicomnode import dimse
from dicomnode.archive import RECEIVED, RESULTS, Archive, Full, archive_path, data_set_digest
from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.database import Database
from dicomnode.errors import Unavailable
from dicomnode.headers import UNREADABLE, image_facts, missing_identifier, text
from dicomnode.sections import ListenerSettings
from dicomnode.store import receiving
from pipeline.limits import check_file, header_part

log = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DUPLICATE_DIFFERS = 0xA701
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_GRACE_S = 5.0  # for associations in progress when the node stops
_ABANDONED = timedelta(
    days=1
)  # a result without a row for that long; no worker holds a job between file and row so long

_TAGS = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "SeriesDate", "AcquisitionDate",
    "AcquisitionDateTime", "StudyTime", "SeriesTime", "AcquisitionTime", "Modality", "PatientID", "IssuerOfPatientID",
    "StudyInstanceUID", "SeriesInstanceUID", "ImageOrientationPatient",
]  # fmt: skip


class Unacceptable(Exception):
    """The instance cannot be stored; carries the C-STORE status that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Receiver:
    """Stores what associations bring."""

    def __init__(self, database: Database, archive: Archive, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._archive = archive
        self._clock = clock

    def run(self, settings: ListenerSettings, services: Sequence[dimse.Service], stop: Event) -> None:
        """Repair what a crash left, listen until `stop` is set, then end the associations.

        services: all that the listener offers, the one of this actor among them.
        """
        self.repair()
        server = dimse.listen(settings, services)
        host, port = server.server_address[:2]
        log.info("listening as %s on %s:%s", settings.ae_title, host, port)
        try:
            stop.wait()
        finally:
            dimse.close(server, _GRACE_S)

    def service(self, transfer_syntaxes: Sequence[str]) -> dimse.Service:
        """What the listener offers on behalf of this actor."""
        return dimse.Service(evt.EVT_C_STORE, dimse.STORED_SOP_CLASSES, transfer_syntaxes, self.on_store)

    def on_store(self, event: evt.Event) -> Dataset:
        """Answer a C-STORE request (PS3.4 B.2.3)."""
        try:
            self.store(event.encoded_dataset(), event.assoc.requestor.ae_title)
            return _answer(SUCCESS, "")
        except Unacceptable as error:
            return _answer(error.status, str(error))
        except Full as error:
            log.debug("an instance was refused: %s", error)  # the housekeeper raises the alarm, once
            return _answer(OUT_OF_RESOURCES, "out of disk space")
        except Unavailable as error:
            log.error("an instance was refused: %s", error)
            return _answer(OUT_OF_RESOURCES, "storage is not available")

    def store(self, blob: bytes, calling_ae: str) -> None:
        """Keep the bytes of a DICOM file and commit its row; an exact duplicate is already safe.

        blob: file with preamble and meta information, whose UIDs are those of the command. Raises Unacceptable or
        Unavailable; nothing is stored then.
        """
        instance = _describe(blob, calling_ae, self._clock())
        with self._database.read() as connection:
            known = receiving.find(connection, instance.sop_instance_uid)
        stored = known.sha256 if known else self._keep(blob, instance)
        if stored != instance.sha256:
            log.warning("other bytes came under the UID of a stored instance; the first are kept")
            raise Unacceptable(DUPLICATE_DIFFERS, "another instance is stored under this UID")
        if known:
            self._repeat(blob, instance)

    def _repeat(self, blob: bytes, instance: StoredInstance) -> None:
        """Take in an exact duplicate: its file is written again where retention removed it, or it was lost."""
        with self._database.begin() as connection:
            if receiving.repeat(connection, instance) or not self._archive.holds(instance.path):
                self._archive.keep(instance.path, blob)

    def _keep(self, blob: bytes, instance: StoredInstance) -> str:
        """Store an instance; returns the digest of what is stored under its UID when this is done."""
        self._archive.keep(instance.path, blob)
        with self._database.begin() as connection:
            if receiving.remember(connection, instance):
                return instance.sha256
            known = receiving.find(connection, instance.sop_instance_uid)
        first = known.sha256 if known else ""
        if first != instance.sha256:  # another association was faster, with other bytes
            self._archive.discard(instance.path)
        return first

    def repair(self) -> None:
        """Index what a crash left between rename and commit; remove unfinished files and results that no job names."""
        self._archive.sweep()
        with self._database.read() as connection:
            indexed = receiving.stored_paths(connection)
        for path in self._archive.received():
            if path not in indexed:
                self._adopt(path)
        for path in self._archive.written_before(RESULTS, self._clock() - _ABANDONED):
            if path not in indexed:
                log.warning("%s was left by a crash and belongs to no job; removed", path)
                self._archive.discard(path)

    def _adopt(self, path: str) -> None:
        try:
            instance = _describe(self._archive.path(path).read_bytes(), "", self._clock())
        except Unacceptable as error:
            log.warning("%s in the archive is not of this node: %s", path, error)
            return
        if instance.path != path:
            log.warning("%s in the archive is not of this node: another name is expected", path)
            return
        with self._database.begin() as connection:
            is_new = receiving.remember(connection, instance)
        if not is_new:  # other bytes came under its UID meanwhile; these were never acknowledged
            self._archive.discard(path)
        log.warning("%s was left without a row by a crash; %s", path, "indexed" if is_new else "removed")


def _describe(blob: bytes, calling_ae: str, now: datetime) -> StoredInstance:
    header, digest = _read_header(blob), data_set_digest(blob)
    image = image_facts(header)
    series_uid, sop_uid = str(header.SeriesInstanceUID), str(header.SOPInstanceUID)
    return StoredInstance(
        sop_instance_uid=sop_uid,
        sop_class_uid=image.sop_class_uid,
        transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
        series_instance_uid=series_uid,
        study_instance_uid=str(header.StudyInstanceUID),
        patient=Patient(text(header, "PatientID"), text(header, "IssuerOfPatientID")),
        modality=image.modality,
        image_type=image.image_type,
        image_orientation=image.image_orientation,
        acquired_at=_acquired_at(header),
        path=archive_path(RECEIVED, series_uid, sop_uid, digest),
        size_bytes=len(blob),
        sha256=digest,
        calling_ae=calling_ae,
        received_at=now,
    )


def _read_header(blob: bytes) -> Dataset:
    try:
        check_file(blob)
        header = dcmread(BytesIO(header_part(blob)), specific_tags=_TAGS, stop_before_pixels=True)
        if complaint := missing_identifier(header):
            raise Unacceptable(DATA_SET_MISMATCH, complaint)
    except UNREADABLE:
        raise Unacceptable(CANNOT_UNDERSTAND, "the data set cannot be decoded") from None
    meta = header.file_meta
    if (header.SOPClassUID, header.SOPInstanceUID) != (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID):
        raise Unacceptable(DATA_SET_MISMATCH, "SOP class or instance UID differs between command and data set")
    return header


def _acquired_at(header: Dataset) -> str:
    """The best known time of acquisition, without fraction and zone."""
    moment = text(header, "AcquisitionDateTime")
    if moment:
        return moment[:14].split(".")[0]
    for kind in ("Acquisition", "Series", "Study"):
        if date := text(header, f"{kind}Date"):
            return date[:8] + text(header, f"{kind}Time").replace(":", "")[:6]
    return ""


def _answer(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment[:64]  # VR LO, PS3.7 C.4
    return answer

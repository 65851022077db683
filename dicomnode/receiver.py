"""Receiver: the first actor. 0x0000 leaves it only when the bytes are on disk and the row is committed."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from io import BytesIO
from threading import Event

from pydicom import Dataset, dcmread
from pynetdicom import Association, evt

from dicomnode import dimse
from dicomnode.archive import RECEIVED, RESULTS, Archive, Full, archive_path, data_set_digest
from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.database import Database
from dicomnode.discretion import scrub
from dicomnode.duplicates import PLAIN, is_same_data_set
from dicomnode.errors import Unavailable
from dicomnode.headers import (
    COUNT_TAGS,
    LABEL_TAGS,
    announced_count,
    file_meta,
    image_facts,
    labels,
    missing_identifier,
    text,
)
from dicomnode.refusals import MOST_ROWS, Refusals
from dicomnode.sections import ListenerSettings
from dicomnode.store import receiving, watch
from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES
from pipeline.errors import UNREADABLE
from pipeline.limits import check_file, header_part

log = logging.getLogger(__name__)

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
OUT_OF_RESOURCES = 0xA700
DUPLICATE_DIFFERS = 0xA701
COERCION = 0xB000
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
SOP_CLASS_NOT_SUPPORTED = 0x0122
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122

_GRACE_S = 5.0  # for associations in progress when the node stops
_RECORD_S = 1.0  # between two looks at what peers were denied
_ABANDONED = timedelta(days=1)  # for results without a row: no worker takes so long from the file to the row

_TAGS = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "SeriesDate", "AcquisitionDate",
    "AcquisitionDateTime", "StudyTime", "SeriesTime", "AcquisitionTime", "Modality", "PatientID", "IssuerOfPatientID",
    "StudyInstanceUID", "SeriesInstanceUID", "ImageOrientationPatient", *COUNT_TAGS, *LABEL_TAGS,
]  # fmt: skip


Witness = Callable[[StoredInstance, bool], None]
"""Told of an instance that is stored, and whether it is new, before that is acknowledged."""


class Unacceptable(Exception):
    """The instance cannot be stored; carries the C-STORE status that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Taken:
    """What became of a file: the UIDs that it claims, empty where it is none, and status and comment of a C-STORE."""

    sop_class_uid: str
    sop_instance_uid: str
    status: int
    comment: str


class Receiver:
    """Stores what associations bring, and what else comes in.

    Several processes may store into one archive; one alone, the listener's, repairs and listens.
    """

    def __init__(
        self,
        database: Database,
        archive: Archive,
        clock: Callable[[], datetime],
        *,
        witness: Callable[[Association, StoredInstance, bool], None] = lambda *_: None,
        guard: Callable[[dimse.Denial], None] = lambda _: None,
        conflict_status: int = DUPLICATE_DIFFERS,
    ) -> None:
        """witness: told of each instance that is stored, and whether it is new, before that is acknowledged.

        guard: told of everything that a peer is denied. conflict_status: answers other content under a stored UID.
        """
        self._database = database
        self._archive = archive
        self._clock = clock
        self._witness = witness
        self._guard = guard
        self._conflict_status = conflict_status
        self._refusals = Refusals()

    def run(
        self,
        settings: ListenerSettings,
        services: Sequence[dimse.Service],
        stop: Event,
        security: ssl.SSLContext | None = None,
    ) -> None:
        """Repair what a crash left, listen until `stop` is set, then end the associations.

        services: all that the listener offers, the one of this actor among them. security: what TLS is spoken with.
        """
        self.repair()
        server = dimse.listen(settings, services, security, self.deny)
        host, port = server.server_address[:2]
        log.info("listening as %s on %s:%s", settings.ae_title, host, port)
        try:
            while not stop.wait(_RECORD_S):
                self.record_refusals()
        finally:
            dimse.close(server, _GRACE_S)
            self.record_refusals()

    def deny(self, denial: dimse.Denial) -> None:
        """Take note that a peer was denied something; it is recorded later."""
        self._refusals.note(denial)
        self._guard(denial)

    def record_refusals(self) -> None:
        """Log and store what peers were denied."""
        refusals = self._refusals.due(self._clock())
        for refusal in refusals:
            peer = f"{refusal.calling_ae or 'a caller'} at {refusal.address}"
            log.warning("refused (%s): %s: %s", refusal.kind, peer, refusal.reason)
        if not refusals:
            return
        try:
            with self._database.begin() as connection:
                for refusal in refusals:
                    watch.record_refusal(connection, refusal)
                watch.forget_refusals(connection, MOST_ROWS)
        except Unavailable as error:
            log.error("refusals are only in the log: %s", error)

    def service(self, transfer_syntaxes: Sequence[str]) -> dimse.Service:
        """What the listener offers on behalf of this actor."""
        return dimse.Service(evt.EVT_C_STORE, dimse.STORED_SOP_CLASSES, transfer_syntaxes, self.on_store)

    def on_store(self, event: evt.Event) -> Dataset:
        """Answer a C-STORE request (PS3.4 B.2.3)."""
        requestor = event.assoc.requestor.ae_title
        return _answer(*self.take(event.encoded_dataset, requestor, partial(self._witness, event.assoc)))

    def take_file(self, blob: bytes, sender: str, witness: Witness) -> Taken:
        """Store a file that no association negotiated: what the listener would not take is refused (PS3.18 I.2)."""
        try:
            about, syntax = identify(blob)
        except UNREADABLE:
            return Taken("", "", CANNOT_UNDERSTAND, "not a DICOM file")
        if about[0] not in dimse.STORED_SOP_CLASSES:
            return Taken(*about, SOP_CLASS_NOT_SUPPORTED, "SOP class not supported")
        if syntax not in DECODABLE_TRANSFER_SYNTAXES:
            return Taken(*about, TRANSFER_SYNTAX_NOT_SUPPORTED, "transfer syntax not supported")
        return Taken(*about, *self.take(lambda: blob, sender[:16], witness))

    def take(self, read: Callable[[], bytes], sender: str, witness: Witness) -> tuple[int, str]:
        """Store what is read, whoever brings it, and answer by status and comment of a C-STORE (PS3.4 B.2.3).

        sender: AE title, or whom else it is known by. witness: told of what is stored, before that is acknowledged.
        """
        try:
            witness(*self.store(read(), sender))
            return SUCCESS, ""
        except Unacceptable as error:
            return error.status, str(error)
        except Full as error:
            log.debug("an instance was refused: %s", error)  # the housekeeper raises the alarm, once
            return OUT_OF_RESOURCES, "out of disk space"
        except Unavailable as error:
            log.error("an instance was refused: %s", error)
            return OUT_OF_RESOURCES, "storage is not available"
        except Exception as error:  # noqa: BLE001 - the listener goes on; the text may quote a patient's data
            log.error("an instance was refused: %s", scrub(error))
            return PROCESSING_FAILURE, "internal error"

    def store(self, blob: bytes, calling_ae: str) -> tuple[StoredInstance, bool]:
        """Keep the bytes of a DICOM file and commit its row; an exact duplicate is already safe.

        Returns the instance, and whether it was not known before.
        blob: file with preamble and meta information, whose UIDs are those of the command. Raises Unacceptable or
        Unavailable; nothing is stored then.
        """
        instance = _describe(blob, calling_ae, self._clock())
        with self._database.read() as connection:
            known = receiving.find(connection, instance.sop_instance_uid)
        known = known or self._keep(blob, instance)
        if known is None:
            return instance, True
        if known.sha256 == instance.sha256:
            self._repeat(blob, instance)
        elif not self._is_stored_otherwise(known, blob):
            self._reject(known, instance)
        return instance, False

    def _keep(self, blob: bytes, instance: StoredInstance) -> receiving.KnownInstance | None:
        """Store an instance, or return what another association was faster to store under its UID."""
        self._archive.keep(instance.path, blob)
        with self._database.begin() as connection:
            if receiving.remember(connection, instance):
                return None
            known = receiving.find(connection, instance.sop_instance_uid)
        if known is None or known.sha256 != instance.sha256:
            self._archive.discard(instance.path)
        return known

    def _repeat(self, blob: bytes, instance: StoredInstance) -> None:
        """Take in an exact duplicate: its file is written again where retention removed it, or it was lost."""
        with self._database.begin() as connection:
            if receiving.repeat(connection, instance) or not self._archive.holds(instance.path):
                self._archive.keep(instance.path, blob)

    def _is_stored_otherwise(self, known: receiving.KnownInstance, blob: bytes) -> bool:
        """Whether the stored file has the same values in another encoding: a sender may choose another syntax now."""
        if known.is_removed or known.transfer_syntax_uid not in PLAIN:
            return False
        try:
            return is_same_data_set(self._archive.path(known.path).read_bytes(), blob)
        except OSError:
            return False

    def _reject(self, known: receiving.KnownInstance, instance: StoredInstance) -> None:
        log.warning("other content came under the UID of a stored instance; the first is kept")
        with self._database.begin() as connection:
            receiving.record_conflict(connection, known, instance)
        # Where retention removed the first, a warning would tell the sender that something is stored.
        status = DUPLICATE_DIFFERS if known.is_removed else self._conflict_status
        raise Unacceptable(status, "other content is stored under this UID and kept")

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
            known = receiving.find(connection, instance.sop_instance_uid)
        if known is not None and known.path == path:  # or another process was about to index it just now
            log.warning("%s was left without a row by a crash; %s", path, "indexed" if is_new else "it has one by now")
            return
        self._archive.discard(path)  # other bytes came under its UID meanwhile; these were never acknowledged
        log.warning("%s was left without a row by a crash; removed", path)


def identify(blob: bytes) -> tuple[tuple[str, str], str]:
    """SOP class and instance UID that a file claims, and its transfer syntax. Raises one of UNREADABLE."""
    meta = file_meta(blob)
    return (str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)), str(meta.TransferSyntaxUID)


def conflict_status(settings: ListenerSettings) -> int:
    """What answers other content under the UID of a stored instance."""
    return COERCION if settings.on_conflict == "warn" else DUPLICATE_DIFFERS


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
        expected_instances=announced_count(header),
        labels=labels(header),
    )


def _read_header(blob: bytes) -> Dataset:
    try:
        check_file(blob)
        header = dcmread(BytesIO(header_part(blob)), specific_tags=_TAGS, stop_before_pixels=True)
        if complaint := missing_identifier(header):
            raise Unacceptable(DATA_SET_MISMATCH, complaint)
        meta = header.file_meta
        commanded = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID)
    except UNREADABLE:
        raise Unacceptable(CANNOT_UNDERSTAND, "the data set cannot be decoded") from None
    if (header.SOPClassUID, header.SOPInstanceUID) != commanded:
        raise Unacceptable(DATA_SET_MISMATCH, "SOP class or instance UID differs between command and data set")
    return header


def _acquired_at(header: Dataset) -> str:
    """The best known time of acquisition, without fraction and zone."""
    moment = text(header, "AcquisitionDateTime")
    if moment:
        return moment[:14].split(".")[0]
    for kind in ("Acquisition", "Series", "Study"):
        if date := text(header, f"{kind}Date"):
            time = text(header, f"{kind}Time").replace(":", "")[:6]
            return date[:8] + time if len(date) >= 8 else date  # of a date cut short a time would make another day
    return ""


def _answer(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment[:64]  # VR LO, PS3.7 C.4
    return answer

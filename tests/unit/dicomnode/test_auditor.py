"""What the auditor makes of what the actors tell it, and its alarms."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from lxml import etree

from dicomnode.archive import Archive
from dicomnode.arrivals import Patient
from dicomnode.audit.messages import Entity
from dicomnode.auditor import _ALERTS, Auditor
from dicomnode.database import Database, open_database
from dicomnode.deliveries import Delivery, DeliveryEvent, Outcome
from dicomnode.dimse import Denial, DenialKind, SentQuery
from dicomnode.errors import Misconfigured
from dicomnode.receiver import Receiver
from dicomnode.retention import Files
from dicomnode.settings import Settings
from dicomnode.store import queue, receiving, retention, watch
from dicomnode.store.retention import Marked
from tests.audit_messages import kind, read_messages
from tests.phantom import PhantomOptions, write_series

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PACS = Entity.peer("PACS", "pacs.example.org")


def settings(folder: Path, **audit: object) -> Settings:
    return Settings(archive={"path": folder / "archive"}, audit=audit)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path}/node.db")
    yield database
    database.close()


@pytest.fixture
def auditor(tmp_path: Path, database: Database) -> Auditor:
    return Auditor(settings(tmp_path), database, lambda: NOW)


@pytest.fixture
def instance(tmp_path: Path, database: Database) -> pydicom.Dataset:
    """Received, and job 1 is for it."""
    file = write_series(tmp_path, PhantomOptions(shape=(1, 4, 4)))[0]
    Receiver(database, Archive(tmp_path / "archive", 0), lambda: NOW).store(file.read_bytes(), "SENDER")
    with database.begin() as connection:
        (arrival,) = receiving.arrivals(connection)
        assert queue.add_job(connection, arrival, "", NOW) == 1
    return pydicom.dcmread(file)


def say(message: etree._Element) -> tuple[str | None, ...]:
    """Kind, action, outcome, reason, and the identifiers of the objects."""
    identification = message.find("EventIdentification")
    objects = message.findall("ParticipantObjectIdentification")
    said = (identification.get(f"Event{name}") for name in ("ActionCode", "OutcomeIndicator"))
    reason = identification.findtext("EventOutcomeDescription")
    return (kind(message), *said, reason, *(found.get("ParticipantObjectID") for found in objects))


def delivery(number: int, sop_class: str) -> Delivery:
    return Delivery(number, 1, "pacs", sop_class, f"1.2.{number}", "path", 1, 0, NOW)


def test_case_26_what_was_sent_is_told_apart_by_what_became_of_it(auditor: Auditor, instance: pydicom.Dataset) -> None:
    attempts = [
        (delivery(1, "1.2.66"), Outcome(DeliveryEvent.ACCEPT, "0x0000 success")),
        (delivery(2, "1.2.88"), Outcome(DeliveryEvent.ACCEPT, "0xB000 warning")),
        (delivery(3, "1.2.88"), Outcome(DeliveryEvent.POSTPONE, "0xA700 full")),
        (delivery(4, "1.2.88"), Outcome(DeliveryEvent.REJECT, "0xC000 refused")),
    ]
    auditor.sent(PACS, attempts)
    subject = (instance.StudyInstanceUID, instance.PatientID)
    messages = read_messages(auditor.trail.folder)
    assert [say(message) for message in messages] == [
        ("DICOM Instances Transferred", "R", "0", None, *subject),
        ("DICOM Instances Transferred", "R", "4", "0xA700 full", *subject),
        ("DICOM Instances Transferred", "R", "8", "0xC000 refused", *subject),
    ]
    assert [found.get("UID") for found in messages[0].iter("SOPClass")] == ["1.2.66", "1.2.88"]
    sender, receiver = messages[0].findall("ActiveParticipant")
    assert sender.get("UserIsRequestor") == "true"
    assert (receiver.get("UserID"), receiver.get("NetworkAccessPointID")) == ("PACS", "pacs.example.org")


def test_an_analysis_is_an_access(auditor: Auditor, database: Database, instance: pydicom.Dataset) -> None:
    with database.read() as connection:
        job = queue.job(connection, 1)
    auditor.used(job)
    (message,) = read_messages(auditor.trail.folder)
    subject = (instance.StudyInstanceUID, instance.PatientID)
    assert say(message) == ("DICOM Instances Accessed", "R", "0", None, *subject)


def test_a_question_to_an_archive_is_recorded(auditor: Auditor) -> None:
    auditor.asked(PACS, SentQuery("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2", b"keys"))
    (message,) = read_messages(auditor.trail.folder)
    assert say(message) == ("Query", "E", "0", None, "1.2.840.10008.5.1.4.1.2.2.1")
    assert [found.get("UserID") for found in message.findall("ActiveParticipant")][1] == "PACS"


@pytest.mark.parametrize(("is_whole", "said"), [(True, "DICOM Study Deleted"), (False, "DICOM Instances Accessed")])
def test_what_retention_removes_is_recorded(auditor: Auditor, is_whole: bool, said: str) -> None:
    auditor.removed(Marked("1.2.3", Patient("P-1", ""), {"1.2.66": 3}, is_whole))
    (message,) = read_messages(auditor.trail.folder)
    assert say(message) == (said, "D", "0", None, "1.2.3", "P-1")


def test_a_study_is_deleted_when_the_last_of_its_series_goes(
    tmp_path: Path, database: Database, instance: pydicom.Dataset
) -> None:
    first, other = str(instance.SeriesInstanceUID), "1.2.3"
    instance.SeriesInstanceUID = other
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    encoded = BytesIO()
    instance.save_as(encoded)
    Receiver(database, Archive(tmp_path / "archive", 0), lambda: NOW).store(encoded.getvalue(), "SENDER")
    with database.begin() as connection:
        marked = [retention.mark(connection, Files.RECEIVED, uid, NOW) for uid in (first, other)]
    assert [one.is_whole_study for one in marked] == [False, True]
    assert [one.sop_classes for one in marked] == [{instance.SOPClassUID: 1}] * 2
    assert {one.study_instance_uid for one in marked} == {instance.StudyInstanceUID}


@pytest.mark.parametrize("denied", list(DenialKind))
def test_case_13_denials_that_matter_to_security_are_alerts(auditor: Auditor, denied: DenialKind) -> None:
    auditor.denied(Denial(denied, "STRANGER", "10.1.2.3", "for a reason"))
    messages = read_messages(auditor.trail.folder)
    assert [kind(message) for message in messages] == [alert.meaning for alert in [_ALERTS.get(denied)] if alert]
    assert all(message.findall("ActiveParticipant")[1].get("UserID") == "STRANGER" for message in messages)


def test_the_source_is_the_title_at_the_host_unless_it_is_set(auditor: Auditor, tmp_path: Path) -> None:
    other = Auditor(settings(tmp_path, source_id="A", enterprise_site_id="B"), auditor._database, lambda: NOW)
    for one in (auditor, other):
        one.start(listens=False)
    sources = [message.find("AuditSourceIdentification") for message in read_messages(other.trail.folder)]
    assert sources[0].get("AuditSourceID") == f"PANCREAS@{auditor.node.address}"
    assert (sources[1].get("AuditSourceID"), sources[1].get("AuditEnterpriseSiteID")) == ("A", "B")


def test_an_alarm_is_on_while_the_trail_cannot_be_written(auditor: Auditor, database: Database) -> None:
    def alarms() -> list[tuple[str, str]]:
        with database.read() as connection:
            return [(alarm.kind, alarm.subject) for alarm in watch.list_alarms(connection, 9)]

    elsewhere = auditor.trail.folder.with_name("elsewhere")
    auditor.trail.folder.rename(elsewhere)
    auditor.start(listens=True)
    assert alarms() == [("security", "audit")]
    elsewhere.rename(auditor.trail.folder)
    auditor.stop(listens=True)
    assert alarms() == []
    kinds = [kind(message) for message in read_messages(auditor.trail.folder)]
    assert kinds == ["Application Start", "Attach", "Detach", "Application Stop"]


def test_tls_without_certificates_is_a_matter_for_the_start(tmp_path: Path, database: Database) -> None:
    with pytest.raises(Misconfigured, match=r"tls\.certificate"):
        Auditor(settings(tmp_path, syslog_host="syslog.example.org"), database, lambda: NOW)

"""What is received is reported by association and study; refusals are reported without end filling the disk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lxml import etree

from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.audit import alerts as alerts_module
from dicomnode.audit.alerts import Alerts
from dicomnode.audit.events import NODE_AUTHENTICATION
from dicomnode.audit.messages import Entity, Source
from dicomnode.audit.trail import Trail
from dicomnode.audit.transfers import Transfers
from tests.audit_messages import kind, read_messages

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SENDER = Entity.peer("CT1", "10.1.2.3")
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "audit", Source("SOURCE"), Entity("4711", "PANCREAS", "node"), lambda reason: None)


@pytest.fixture
def transfers(trail: Trail) -> Transfers:
    return Transfers(trail)


def instance(study: str, at: datetime = NOW, sop_class: str = CT) -> StoredInstance:
    texts = dict.fromkeys(StoredInstance.__dataclass_fields__, "")
    known = {"study_instance_uid": study, "sop_class_uid": sop_class, "patient": Patient(f"P-{study}", "")}
    return StoredInstance(**{**texts, **known, "received_at": at})  # type: ignore[arg-type]


def say(message: etree._Element) -> tuple[str, str, str, dict[str, int]]:
    """Kind, action, study and how many of each SOP class."""
    counts = {found.get("UID"): int(found.get("NumberOfInstances")) for found in message.iter("SOPClass")}
    study = message.find("ParticipantObjectIdentification").get("ParticipantObjectID")
    return kind(message), message.find("EventIdentification").get("EventActionCode"), study, counts


def over(*associations: str) -> Callable[[object], bool]:
    return lambda association: association in associations


def test_one_message_for_each_association_and_study_when_it_is_over(transfers: Transfers, trail: Trail) -> None:
    for number in range(3):
        transfers.add("a", SENDER, instance("1"), is_new=True)
        transfers.add("b", SENDER, instance("1"), is_new=True)
        transfers.add("a", SENDER, instance("2", sop_class=f"1.2.{number}"), is_new=True)
    begun = [say(message)[0] for message in read_messages(trail.folder)]
    assert begun == ["Begin Transferring DICOM Instances"] * 3
    transfers.settle(over("a"))
    transfers.settle(over("a"))
    done = [say(message) for message in read_messages(trail.folder)[3:]]
    assert done == [
        ("DICOM Instances Transferred", "C", "1", {CT: 3}),
        ("DICOM Instances Transferred", "C", "2", {"1.2.0": 1, "1.2.1": 1, "1.2.2": 1}),
    ]
    transfers.settle(over("a", "b"))
    assert len(read_messages(trail.folder)) == 6


def test_the_beginning_is_recorded_before_the_instance_is_acknowledged(transfers: Transfers, trail: Trail) -> None:
    transfers.add("a", SENDER, instance("1"), is_new=True)
    (begun,) = read_messages(trail.folder)
    assert say(begun)[:3] == ("Begin Transferring DICOM Instances", "E", "1")
    assert begun.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID") == "P-1"
    assert [found.get("UserID") for found in begun.findall("ActiveParticipant")] == ["CT1", "4711"]


def test_what_was_here_already_is_told_apart(transfers: Transfers, trail: Trail) -> None:
    for is_new in (True, False, False):
        transfers.add("a", SENDER, instance("1"), is_new=is_new)
    transfers.settle(over("a"))
    assert [say(message)[1:] for message in read_messages(trail.folder)[1:]] == [
        ("C", "1", {CT: 1}),
        ("R", "1", {CT: 2}),
    ]


def test_the_time_is_that_of_the_last_instance(transfers: Transfers, trail: Trail) -> None:
    for seconds in (0, 7):
        transfers.add("a", SENDER, instance("1", NOW + timedelta(seconds=seconds)), is_new=True)
    transfers.settle(over("a"))
    done = read_messages(trail.folder)[-1]
    assert done.find("EventIdentification").get("EventDateTime") == "2026-01-02T12:00:07.000+00:00"


def test_an_association_without_end_is_reported_by_the_thousand(transfers: Transfers, trail: Trail) -> None:
    for _ in range(2500):
        transfers.add("a", SENDER, instance("1"), is_new=True)
    transfers.settle(over("a"))
    counts = [say(message)[3] for message in read_messages(trail.folder)]
    assert counts == [{}, {CT: 1000}, {}, {CT: 1000}, {}, {CT: 500}]


def test_case_13_who_keeps_trying_is_reported_at_once_and_then_once_a_minute(trail: Trail) -> None:
    alerts = Alerts(trail)
    for second in range(50):
        alerts.sound(SENDER, NODE_AUTHENTICATION, "not on the list", NOW + timedelta(seconds=second))
        alerts.settle(NOW + timedelta(seconds=second))
    for minute in range(1, 5):
        alerts.settle(NOW + timedelta(minutes=minute))
    reasons = [found.findtext("EventIdentification/EventOutcomeDescription") for found in read_messages(trail.folder)]
    assert reasons == ["not on the list", "not on the list, 49 more times"]
    alerts.sound(SENDER, NODE_AUTHENTICATION, "not on the list", NOW + timedelta(minutes=9))
    assert len(read_messages(trail.folder)) == 3


def test_many_addresses_neither_fill_the_disk_nor_memory(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts_module, "_MOST_CAUSES", 10)
    alerts = Alerts(trail)
    for number in range(200):
        alerts.sound(Entity.peer("X", f"10.0.0.{number}"), NODE_AUTHENTICATION, "no", NOW)
    assert len(read_messages(trail.folder)) == 11
    alerts.settle(NOW + timedelta(minutes=1))
    last = read_messages(trail.folder)[-1]
    assert last.findtext("EventIdentification/EventOutcomeDescription") == "no, 189 more times"

"""Audit messages: every kind fits the standard's schema and says what PS3.15 A.5.3 asks for."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from lxml import etree

from dicomnode.arrivals import Patient
from dicomnode.audit import events
from dicomnode.audit.events import Query, Result, Study, Transfer
from dicomnode.audit.messages import Action, Entity, Event, Outcome, Source, to_xml
from tests.audit_messages import SCHEMA, kind, parse

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NODE = Entity("4711", "PANCREAS", "node.example.org")
PEER = Entity.peer("CT1", "10.1.2.3")
READER = Entity("reader", "", "10.1.2.4")
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = Study("1.2.3", Patient("P-1", "CLINIC"), {CT: 300})
IN, OUT = Transfer(PEER, NODE, STUDY), Transfer(NODE, PEER, STUDY)
ASKED = Query("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2", b"\x08\x00\x52\x00")

# Event, its code, that of its type, its action.
KINDS: list[tuple[Event, str, str | None, str]] = [
    (events.application_started(NODE, NOW), "110100", "110120", "E"),
    (events.application_stopped(NODE, NOW), "110100", "110121", "E"),
    (events.network_entered(NODE, NOW), "110108", "110124", "E"),
    (events.network_left(NODE, NOW), "110108", "110125", "E"),
    (events.transfer_begun(IN, NOW), "110102", None, "E"),
    (events.instances_transferred(IN, Result(Action.CREATE), NOW), "110104", None, "C"),
    (events.instances_transferred(OUT, Result(Action.READ), NOW), "110104", None, "R"),
    (events.instances_accessed(NODE, STUDY, Action.READ, NOW), "110103", None, "R"),
    (events.instances_accessed(NODE, STUDY, Action.UPDATE, NOW, READER), "110103", None, "U"),
    (events.data_exported(NODE, READER, "file:///backup/node.db", [STUDY, STUDY], NOW), "110106", None, "R"),
    (events.patients_linked(NODE, READER, [STUDY.patient, Patient("P-2", "")], NOW), "110110", None, "U"),
    (events.user_authenticated(NODE, READER, events.LOGIN, NOW), "110114", "110122", "E"),
    (events.user_authenticated(NODE, READER, events.LOGIN, NOW), "110114", "110122", "E"),
    (events.user_authenticated(NODE, READER, events.LOGOUT, NOW), "110114", "110123", "E"),
    (events.study_deleted(NODE, STUDY, NOW), "110105", None, "D"),
    (events.query_sent(NODE, PEER, ASKED, NOW), "110112", None, "E"),
    (events.security_alert(NODE, PEER, events.NODE_AUTHENTICATION, "why", NOW), "110113", "110126", "E"),
    (events.security_alert(NODE, PEER, events.RESTRICTED_FUNCTION, "why", NOW), "110113", "110132", "E"),
    (events.security_alert(NODE, None, events.RECORDING_STOPPED, "why", NOW), "110113", "110133", "E"),
]


def encode(event: Event) -> etree._Element:
    return parse(to_xml(event, Source("PANCREAS@node", "Ward 7")))


def study_and_patient(message: etree._Element) -> tuple[str, str]:
    study, patient = message.findall("ParticipantObjectIdentification")
    return study.get("ParticipantObjectID"), patient.get("ParticipantObjectID")


@pytest.mark.parametrize(("event", "code", "type_code", "action"), KINDS, ids=lambda value: getattr(value, "id", ""))
def test_every_kind_of_message_fits_the_schema(event: Event, code: str, type_code: str | None, action: str) -> None:
    message = encode(event)
    identification = message.find("EventIdentification")
    assert identification.find("EventID").attrib["csd-code"] == code
    assert [found.get("csd-code") for found in identification.findall("EventTypeCode")] == [type_code] * bool(type_code)
    assert identification.get("EventActionCode") == action
    assert identification.get("EventDateTime") == "2026-01-02T03:04:05.000+00:00"
    source = message.find("AuditSourceIdentification")
    assert (source.get("AuditSourceID"), source.get("AuditEnterpriseSiteID")) == ("PANCREAS@node", "Ward 7")


def test_every_function_of_the_module_is_among_them() -> None:
    made = {name for name, value in vars(events).items() if getattr(value, "__module__", "") == events.__name__}
    functions = {name for name in made if callable(getattr(events, name)) and not name.startswith("_")}
    assert functions - {"Study", "Transfer", "Result", "Query"} == {
        "application_started", "application_stopped", "network_entered", "network_left", "transfer_begun",
        "instances_transferred", "instances_accessed", "study_deleted", "query_sent", "security_alert", "data_exported",
        "patients_linked", "user_authenticated",
    }  # fmt: skip


@pytest.mark.parametrize("broken", [b'EventOutcomeIndicator="0"', b'UserIsRequestor="false"', b'AuditSourceID="S"'])
def test_a_broken_message_does_not_fit(broken: bytes) -> None:
    xml = to_xml(KINDS[0][0], Source("S"))
    assert SCHEMA.validate(etree.fromstring(xml))
    assert not SCHEMA.validate(etree.fromstring(xml.replace(broken, b"")))
    assert not SCHEMA.validate(etree.fromstring(xml.replace(b"csd-code", b"code")))


def test_a_transfer_names_sender_receiver_study_patient_and_counts() -> None:
    message = encode(events.instances_transferred(IN, Result(Action.CREATE), NOW))
    sender, receiver = message.findall("ActiveParticipant")
    assert dict(sender.attrib) == {
        "UserID": "CT1", "AlternativeUserID": "AETITLES=CT1", "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.1.2.3", "NetworkAccessPointTypeCode": "2",
    }  # fmt: skip
    assert dict(receiver.attrib) == {
        "UserID": "4711", "AlternativeUserID": "AETITLES=PANCREAS", "UserIsRequestor": "false",
        "NetworkAccessPointID": "node.example.org", "NetworkAccessPointTypeCode": "1",
    }  # fmt: skip
    assert [found.find("RoleIDCode").get("csd-code") for found in (sender, receiver)] == ["110153", "110152"]
    assert study_and_patient(message) == ("1.2.3", "P-1")
    counted = message.find(".//ParticipantObjectDescription/SOPClass")
    assert dict(counted.attrib) == {"UID": CT, "NumberOfInstances": "300"}
    issuer = message.find(".//ParticipantObjectDetail[@type='IssuerOfPatientID']")
    assert base64.b64decode(issuer.get("value")) == b"CLINIC"


def test_a_failure_says_how_grave_it_is_and_why() -> None:
    result = Result(Action.READ, Outcome.SERIOUS, "0xC000 refused by the archive")
    identification = encode(events.instances_transferred(OUT, result, NOW)).find("EventIdentification")
    assert identification.get("EventOutcomeIndicator") == "8"
    assert identification.findtext("EventOutcomeDescription") == "0xC000 refused by the archive"


def test_a_query_carries_what_was_asked() -> None:
    message = encode(events.query_sent(NODE, PEER, ASKED, NOW))
    asked = message.find("ParticipantObjectIdentification")
    assert asked.get("ParticipantObjectID") == ASKED.sop_class_uid
    assert base64.b64decode(asked.findtext("ParticipantObjectQuery")) == ASKED.identifier
    syntax = asked.find("ParticipantObjectDetail[@type='TransferSyntax']").get("value")
    assert base64.b64decode(syntax).decode() == ASKED.transfer_syntax_uid


def test_an_alert_names_the_peer_and_what_it_did() -> None:
    message = encode(events.security_alert(NODE, PEER, events.NODE_AUTHENTICATION, "calling AE title not allowed", NOW))
    assert kind(message) == "Node Authentication"
    assert message.find("EventIdentification").get("EventOutcomeIndicator") == "4"
    assert [found.get("UserID") for found in message.findall("ActiveParticipant")] == ["4711", "CT1"]
    subject = message.find("ParticipantObjectIdentification")
    assert subject.get("ParticipantObjectID") == "10.1.2.3"
    said = subject.find("ParticipantObjectDetail[@type='Alert Description']").get("value")
    assert base64.b64decode(said) == b"calling AE title not allowed"


@pytest.mark.parametrize(
    "hostile", ["a\x00b", "a\nb\r\tc", "<&\">'", "\ud800", "\ufffe", "Müller^日本", "x" * 70_000, "😀" * 999, ""]
)
def test_case_04_hostile_identifiers_make_valid_messages_of_one_short_line(hostile: str) -> None:
    study = Study(hostile, Patient(hostile, hostile), {CT: 1})
    peer = Entity.peer(hostile, "10.1.2.3")
    event = events.instances_transferred(Transfer(peer, NODE, study), Result(Action.CREATE), NOW)
    xml = to_xml(event, Source("S"))
    parse(xml)
    assert xml.isascii()
    assert b"\n" not in xml
    assert len(xml) < 32768


def test_times_are_utc_whatever_the_zone() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=-7)))
    message = encode(events.application_started(NODE, there))
    assert message.find("EventIdentification").get("EventDateTime") == "2026-01-02T03:04:05.000+00:00"


def test_an_export_names_person_process_medium_and_each_study_once() -> None:
    other = Study("1.2.4", STUDY.patient, {})
    message = encode(events.data_exported(NODE, READER, "file:///b/node.db", [STUDY, other, STUDY], NOW))
    told = [(one.get("UserID"), one.get("UserIsRequestor")) for one in message.findall("ActiveParticipant")]
    assert told == [("reader", "true"), ("4711", "false"), ("file:///b/node.db", "false")]
    assert message.find("ActiveParticipant/MediaIdentifier/MediaType").get("csd-code") == "110037"
    objects = [one.get("ParticipantObjectID") for one in message.findall("ParticipantObjectIdentification")]
    assert objects == ["1.2.3", "P-1", "1.2.4"]

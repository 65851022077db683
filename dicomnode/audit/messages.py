"""The parts of a DICOM audit message, and its XML (PS3.15 A.5.1). Pure."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import NamedTuple
from xml.etree import ElementTree as ET

_MOST_CHARACTERS = 256  # of what a peer may choose; every receiver takes messages of 32768 bytes (PS3.15 A.6)
_UNPRINTABLE = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Code(NamedTuple):
    """A coded value (PS3.15 A.5.1.1 CodedValueType)."""

    value: str
    scheme: str
    meaning: str


class Action(StrEnum):
    """What was done (EventActionCode)."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(IntEnum):
    """How it ended (EventOutcomeIndicator): minor failures are tried again, serious ones are final."""

    SUCCESS = 0
    MINOR = 4
    SERIOUS = 8
    MAJOR = 12


class Kind(StrEnum):
    """What an object is (ParticipantObjectTypeCode)."""

    PERSON = "1"
    SYSTEM_OBJECT = "2"


class ObjectRole(StrEnum):
    """What an object is in the event (ParticipantObjectTypeCodeRole)."""

    PATIENT = "1"
    REPORT = "3"
    SECURITY_RESOURCE = "13"


@dataclass(frozen=True)
class Source:
    """Who writes messages (AuditSourceIdentification). site: where in the enterprise; empty: not said."""

    id: str
    site: str = ""


@dataclass(frozen=True)
class Entity:
    """An application entity that takes part. user_id: this node's process, by its number; a peer's AE title.

    address: IP address or host name; empty: unknown.
    """

    user_id: str
    ae_title: str
    address: str

    @classmethod
    def peer(cls, ae_title: str, address: str) -> Entity:
        """An application entity elsewhere, of which only title and address are known."""
        return cls(ae_title or address, ae_title, address)


@dataclass(frozen=True)
class Participant:
    """An entity and what it does in the event (ActiveParticipant). media: of which kind it is, if it is a medium."""

    entity: Entity
    role: Code | None = None
    is_requestor: bool = False
    media: Code | None = None


@dataclass(frozen=True)
class Object:
    """What the event is about (ParticipantObjectIdentification).

    query: of a Query message, the encoded identifier. details: by their type. sop_classes: how many instances of each.
    """

    id: str
    id_type: Code
    kind: Kind
    role: ObjectRole
    query: bytes | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    sop_classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """What happened. reason: why it failed, without identifiers of patients."""

    id: Code
    action: Action
    at: datetime
    participants: tuple[Participant, ...]
    objects: tuple[Object, ...] = ()
    type: Code | None = None
    outcome: Outcome = Outcome.SUCCESS
    reason: str = ""


def to_xml(event: Event, source: Source) -> bytes:
    """The message in one line of ASCII, which is UTF-8 too; what XML cannot hold becomes U+FFFD."""
    root = ET.Element("AuditMessage")
    _add_event(root, event)
    for participant in event.participants:
        _add_participant(root, participant)
    identification = ET.SubElement(root, "AuditSourceIdentification", {"AuditSourceID": _clean(source.id)})
    if source.site:
        identification.set("AuditEnterpriseSiteID", _clean(source.site))
    ET.SubElement(identification, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
    for item in event.objects:
        _add_object(root, item)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(root, encoding="us-ascii")


def _add_event(root: ET.Element, event: Event) -> None:
    moment = event.at.astimezone(UTC).isoformat(timespec="milliseconds")
    attributes = {"EventActionCode": event.action, "EventDateTime": moment}
    found = ET.SubElement(root, "EventIdentification", {**attributes, "EventOutcomeIndicator": str(int(event.outcome))})
    _add_code(found, "EventID", event.id)
    if event.type:
        _add_code(found, "EventTypeCode", event.type)
    if event.reason:
        ET.SubElement(found, "EventOutcomeDescription").text = _clean(event.reason)


def _add_participant(root: ET.Element, participant: Participant) -> None:
    entity = participant.entity
    found = ET.SubElement(root, "ActiveParticipant", {"UserID": _clean(entity.user_id)})
    if entity.ae_title:
        found.set("AlternativeUserID", f"AETITLES={_clean(entity.ae_title)}")  # PS3.15 A.5.2.2
    found.set("UserIsRequestor", "true" if participant.is_requestor else "false")
    if entity.address:
        found.set("NetworkAccessPointID", _clean(entity.address))
        found.set("NetworkAccessPointTypeCode", "2" if _is_ip_address(entity.address) else "1")
    if participant.role:
        _add_code(found, "RoleIDCode", participant.role)
    if participant.media:
        _add_code(ET.SubElement(found, "MediaIdentifier"), "MediaType", participant.media)


def _add_object(root: ET.Element, item: Object) -> None:
    identity = {"ParticipantObjectID": _clean(item.id), "ParticipantObjectTypeCode": item.kind}
    attributes = {**identity, "ParticipantObjectTypeCodeRole": item.role}
    found = ET.SubElement(root, "ParticipantObjectIdentification", attributes)
    _add_code(found, "ParticipantObjectIDTypeCode", item.id_type)
    if item.query is None:
        # The schema asks for a name. The node keeps no names, so that the identifier stands there again.
        ET.SubElement(found, "ParticipantObjectName").text = _clean(item.id)
    else:
        ET.SubElement(found, "ParticipantObjectQuery").text = base64.b64encode(item.query).decode()
    for name, value in item.details.items():
        pair = {"type": name, "value": base64.b64encode(_clean(value).encode()).decode()}
        ET.SubElement(found, "ParticipantObjectDetail", pair)
    if item.sop_classes:
        description = ET.SubElement(found, "ParticipantObjectDescription")
        for uid, count in sorted(item.sop_classes.items()):
            ET.SubElement(description, "SOPClass", {"UID": _clean(uid), "NumberOfInstances": str(count)})


def _add_code(parent: ET.Element, name: str, code: Code) -> None:
    value = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    ET.SubElement(parent, name, value)


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text[:_MOST_CHARACTERS])


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

"""What the node reports, one function for each kind of message (PS3.15 A.5.3). Pure: what is made here is recorded by a
`Trail`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dicomnode.arrivals import Patient
from dicomnode.audit.messages import Action, Code, Entity, Event, Kind, Object, ObjectRole, Outcome, Participant


def _dcm(value: int, meaning: str) -> Code:
    return Code(str(value), "DCM", meaning)


# CID 400
APPLICATION_ACTIVITY = _dcm(110100, "Application Activity")
BEGIN_TRANSFERRING = _dcm(110102, "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = _dcm(110103, "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = _dcm(110104, "DICOM Instances Transferred")
STUDY_DELETED = _dcm(110105, "DICOM Study Deleted")
EXPORT = _dcm(110106, "Export")
NETWORK_ENTRY = _dcm(110108, "Network Entry")
PATIENT_RECORD = _dcm(110110, "Patient Record")
QUERY = _dcm(110112, "Query")
SECURITY_ALERT = _dcm(110113, "Security Alert")
USER_AUTHENTICATION = _dcm(110114, "User Authentication")

# CID 401
APPLICATION_START = _dcm(110120, "Application Start")
APPLICATION_STOP = _dcm(110121, "Application Stop")
LOGIN = _dcm(110122, "Login")
LOGOUT = _dcm(110123, "Logout")
ATTACH = _dcm(110124, "Attach")
DETACH = _dcm(110125, "Detach")
NODE_AUTHENTICATION = _dcm(110126, "Node Authentication")
RESTRICTED_FUNCTION = _dcm(110132, "Use of Restricted Function")
RECORDING_STOPPED = _dcm(110133, "Audit Recording Stopped")

# CID 402
_APPLICATION = _dcm(110150, "Application")
_DESTINATION = _dcm(110152, "Destination Role ID")
_SOURCE = _dcm(110153, "Source Role ID")
_MEDIA = _dcm(110154, "Destination Media")

# CID 405
_URI = _dcm(110037, "URI")

# CID 404
_STUDY_UID = _dcm(110180, "Study Instance UID")
_SOP_CLASS_UID = _dcm(110181, "SOP Class UID")
_NODE_ID = _dcm(110182, "Node ID")
_PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")


@dataclass(frozen=True)
class Study:
    """The part of a study that an event is about. sop_classes: how many instances of each SOP class."""

    uid: str
    patient: Patient
    sop_classes: Mapping[str, int]


@dataclass(frozen=True)
class Transfer:
    """Who sends which instances to whom."""

    sender: Entity
    receiver: Entity
    study: Study


@dataclass(frozen=True)
class Result:
    """How a transfer ended. action: CREATE where the receiver did not have the instances, READ where it had, or where
    that is not known.
    """

    action: Action
    outcome: Outcome = Outcome.SUCCESS
    reason: str = ""


@dataclass(frozen=True)
class Query:
    """A query as it goes over the network. identifier: encoded in the transfer syntax."""

    sop_class_uid: str
    transfer_syntax_uid: str
    identifier: bytes


def application_started(node: Entity, at: datetime) -> Event:
    """Application Activity (A.5.3.1)."""
    return _lone(APPLICATION_ACTIVITY, APPLICATION_START, Participant(node, _APPLICATION), at)


def application_stopped(node: Entity, at: datetime) -> Event:
    """Application Activity (A.5.3.1)."""
    return _lone(APPLICATION_ACTIVITY, APPLICATION_STOP, Participant(node, _APPLICATION), at)


def network_entered(node: Entity, at: datetime) -> Event:
    """Network Entry (A.5.3.9)."""
    return _lone(NETWORK_ENTRY, ATTACH, Participant(node), at)


def network_left(node: Entity, at: datetime) -> Event:
    """Network Entry (A.5.3.9)."""
    return _lone(NETWORK_ENTRY, DETACH, Participant(node), at)


def transfer_begun(transfer: Transfer, at: datetime) -> Event:
    """Begin Transferring DICOM Instances (A.5.3.3); the study says what is known by then."""
    return Event(
        BEGIN_TRANSFERRING, Action.EXECUTE, at, _both(transfer.sender, transfer.receiver), _subject(transfer.study)
    )


def instances_transferred(transfer: Transfer, result: Result, at: datetime) -> Event:
    """DICOM Instances Transferred (A.5.3.7); what succeeded and what failed are messages of their own (A.5.2)."""
    participants = _both(transfer.sender, transfer.receiver)
    return Event(
        INSTANCES_TRANSFERRED,
        result.action,
        at,
        participants,
        _subject(transfer.study),
        outcome=result.outcome,
        reason=result.reason,
    )


def instances_accessed(node: Entity, study: Study, action: Action, at: datetime, person: Entity | None = None) -> Event:
    """DICOM Instances Accessed (A.5.3.6).

    READ: for an analysis, or a person is shown them. UPDATE: a person marked a result as invalid, or lifted the mark.
    DELETE: a part of a study is removed. person: None: the node does it by itself.
    """
    alone = (Participant(node, is_requestor=True),)
    participants = (Participant(person, is_requestor=True), Participant(node)) if person else alone
    return Event(INSTANCES_ACCESSED, action, at, participants, _subject(study))


def data_exported(node: Entity, person: Entity, file: str, studies: Sequence[Study], at: datetime) -> Event:
    """Data Export (A.5.3.4) into a file: studies and patients that it holds something of."""
    participants = (
        Participant(person, _SOURCE, is_requestor=True),
        Participant(node, _SOURCE),
        Participant(Entity(file, "", ""), _MEDIA, media=_URI),
    )
    objects = {(item.id, item.id_type): item for study in studies for item in _subject(study)}
    return Event(EXPORT, Action.READ, at, participants, tuple(objects.values()))


def user_authenticated(node: Entity, person: Entity, kind: Code, at: datetime, *, reason: str = "") -> Event:
    """User Authentication (A.5.3.12). kind: LOGIN or LOGOUT. reason: why it failed; empty: it succeeded."""
    participants = (Participant(person, is_requestor=True), Participant(node))
    outcome = Outcome.MINOR if reason else Outcome.SUCCESS
    return Event(USER_AUTHENTICATION, Action.EXECUTE, at, participants, type=kind, outcome=outcome, reason=reason)


def patients_linked(node: Entity, person: Entity, patients: Sequence[Patient], at: datetime) -> Event:
    """Patient Record (CID 400): a person said that patients are one, or took that back."""
    participants = (Participant(person, is_requestor=True), Participant(node))
    return Event(PATIENT_RECORD, Action.UPDATE, at, participants, tuple(_person(patient) for patient in patients))


def study_deleted(node: Entity, study: Study, at: datetime) -> Event:
    """DICOM Study Deleted (A.5.3.8): all that the node held of a study."""
    return Event(STUDY_DELETED, Action.DELETE, at, (Participant(node, is_requestor=True),), _subject(study))


def query_sent(node: Entity, archive: Entity, query: Query, at: datetime) -> Event:
    """Query (A.5.3.10): recorded is the question, not the answer."""
    asked = Object(
        query.sop_class_uid,
        _SOP_CLASS_UID,
        Kind.SYSTEM_OBJECT,
        ObjectRole.REPORT,
        query=query.identifier,
        details={"TransferSyntax": query.transfer_syntax_uid},
    )
    return Event(QUERY, Action.EXECUTE, at, _both(node, archive), (asked,))


def security_alert(node: Entity, peer: Entity | None, alert: Code, reason: str, at: datetime) -> Event:
    """Security Alert (A.5.3.11). Minor failure: the node kept the peer out.

    alert: of CID 401. peer: who did it; None: nobody else had a part.
    """
    about = peer or node
    subject = Object(
        about.address or about.user_id,
        _NODE_ID,
        Kind.SYSTEM_OBJECT,
        ObjectRole.SECURITY_RESOURCE,
        details={"Alert Description": reason},
    )
    participants = (Participant(node), Participant(peer)) if peer else (Participant(node),)
    return Event(
        SECURITY_ALERT, Action.EXECUTE, at, participants, (subject,), type=alert, outcome=Outcome.MINOR, reason=reason
    )


def _lone(event: Code, kind: Code, participant: Participant, at: datetime) -> Event:
    return Event(event, Action.EXECUTE, at, (participant,), type=kind)


def _both(sender: Entity, receiver: Entity) -> tuple[Participant, ...]:
    return (Participant(sender, _SOURCE, is_requestor=True), Participant(receiver, _DESTINATION))


def _subject(study: Study) -> tuple[Object, ...]:
    return (
        Object(study.uid, _STUDY_UID, Kind.SYSTEM_OBJECT, ObjectRole.REPORT, sop_classes=study.sop_classes),
        _person(study.patient),
    )


def _person(patient: Patient) -> Object:
    issuer = {"IssuerOfPatientID": patient.issuer} if patient.issuer else {}
    return Object(patient.id, _PATIENT_NUMBER, Kind.PERSON, ObjectRole.PATIENT, details=issuer)

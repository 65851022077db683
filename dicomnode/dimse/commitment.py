"""Storage commitment as its SCU (PS3.4 Annex J, Push Model): the request, and the report on either association."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import Association, build_context, evt
from pynetdicom.dimse_messages import N_ACTION_RSP
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.dsutils import encode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicomnode.deliveries import Delivery, Report
from dicomnode.dimse.associations import associate
from dicomnode.dimse.listening import Service
from dicomnode.dimse.sending import Line
from dicomnode.errors import Unavailable

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT = 0x0113
INVALID_ARGUMENT = 0x0115
NOT_AUTHORISED = 0x0124
"""Answers to an N-EVENT-REPORT (PS3.7 10.1.1.1.8 and Annex C)."""

SYNTAXES = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
_REQUEST = 1  # the Action Type ID (PS3.4 J.3.2)
_EVENTS = (1, 2)  # complete; complete, but there are failures (PS3.4 J.3.3)


@dataclass(frozen=True)
class Reporter:
    """Who brought a report."""

    ae_title: str
    address: str


Take = Callable[[Report, Reporter], int]
"""What becomes of a report: returns the status to answer."""


@dataclass(frozen=True)
class Request:
    """What the archive is asked to commit to, under a transaction UID that was never used before."""

    transaction_uid: str
    deliveries: Sequence[Delivery]

    def as_dataset(self) -> Dataset:
        """The Action Information (PS3.4 Table J.3-1)."""
        information = Dataset()
        information.TransactionUID = self.transaction_uid
        information.ReferencedSOPSequence = [self._reference(delivery) for delivery in self.deliveries]
        return information

    @staticmethod
    def _reference(delivery: Delivery) -> Dataset:
        reference = Dataset()
        reference.ReferencedSOPClassUID = delivery.sop_class_uid
        reference.ReferencedSOPInstanceUID = delivery.sop_instance_uid
        return reference


def reports(take: Take) -> Service:
    """What the listener offers to archives that report on an association of their own."""
    syntaxes, answer = SYNTAXES, _answerer(take)
    return Service(evt.EVT_N_EVENT_REPORT, (StorageCommitmentPushModel,), syntaxes, answer, is_notified=True)


def ask(line: Line, request: Request, take: Take, *, linger_s: float) -> None:
    """N-ACTION: ask for the commitment, and wait `linger_s` for a report on the same association.

    The report may come before the answer to the request. Raises Unavailable where the request is not answered by
    success, Refused where the archive offers no storage commitment; a report may come on another association
    even where the answer was lost.
    """
    dialogue = _Dialogue(take)
    contexts = [build_context(StorageCommitmentPushModel, list(SYNTAXES))]
    with associate(line.peer, line.calling_ae, contexts, line.timeout_s, dialogue.handlers()) as association:
        _send(association, request)
        status = dialogue.status(line.timeout_s)
        if not dialogue.is_reported and status != SUCCESS:
            what = "not answered" if status is None else f"answered by 0x{status:04X}"
            raise Unavailable(f"{line.peer}: the request for storage commitment was {what}")
        dialogue.linger(linger_s)


def _send(association: Association, request: Request) -> None:
    """Send the N-ACTION without waiting; pynetdicom's `send_n_action` aborts where a report overtakes the answer."""
    (context,) = association.accepted_contexts
    syntax = context.transfer_syntax[0]
    information = encode(request.as_dataset(), syntax.is_implicit_VR, syntax.is_little_endian)
    action = N_ACTION()
    action.MessageID = 1
    action.RequestedSOPClassUID = StorageCommitmentPushModel
    action.RequestedSOPInstanceUID = StorageCommitmentPushModelInstance
    action.ActionTypeID = _REQUEST
    action.ActionInformation = BytesIO(information or b"")
    association.dimse.send_msg(action, context.context_id)


class _Dialogue:
    """What comes back on the association of the request, in whatever order."""

    def __init__(self, take: Take) -> None:
        self._answer = _answerer(take)
        self._statuses: SimpleQueue[int | None] = SimpleQueue()
        self._taken = Event()
        self._over = Event()

    def handlers(self) -> list[Any]:
        return [
            (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_DIMSE_RECV, self._received),
            (evt.EVT_PDU_SENT, self._sent),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]

    @property
    def is_reported(self) -> bool:
        return self._taken.is_set()

    def status(self, timeout_s: float) -> int | None:
        """The status of the answer to the request; None where none came."""
        with suppress(Empty):
            return self._statuses.get(timeout=timeout_s)
        return None

    def linger(self, seconds: float) -> None:
        """Until a report was answered or the connection closed, or for so long."""
        self._over.wait(seconds)

    def _report(self, event: evt.Event) -> tuple[int, None]:
        answer = self._answer(event)
        self._taken.set()
        return answer

    def _received(self, event: evt.Event) -> None:
        if isinstance(event.message, N_ACTION_RSP):
            self._statuses.put(event.message.command_set.get("Status"))

    def _sent(self, event: evt.Event) -> None:
        if self.is_reported and isinstance(event.pdu, P_DATA_TF):
            self._over.set()  # the answer to the report is on its way: the association may be released

    def _closed(self, _event: evt.Event) -> None:
        self._statuses.put(None)
        self._over.set()


class _Malformed(Exception):
    """The report cannot be understood; carries the status that says why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"0x{status:04X}")
        self.status = status


def _answerer(take: Take) -> Callable[[evt.Event], tuple[int, None]]:
    """The handler of N-EVENT-REPORT requests."""

    def answer(event: evt.Event) -> tuple[int, None]:
        peer = event.assoc.remote
        try:
            return take(_read(event), Reporter(peer["ae_title"], peer["address"])), None
        except _Malformed as error:
            return error.status, None
        except Unavailable:
            return PROCESSING_FAILURE, None

    return answer


def _read(event: evt.Event) -> Report:
    """The Event Information (PS3.4 Table J.3-2). An instance that is listed as failed too is failed."""
    if event.request.AffectedSOPInstanceUID != StorageCommitmentPushModelInstance:
        raise _Malformed(NO_SUCH_INSTANCE)
    if event.event_type not in _EVENTS:
        raise _Malformed(NO_SUCH_EVENT)
    try:
        information = event.event_information
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason", PROCESSING_FAILURE))
            for item in information.get("FailedSOPSequence", [])
        }
        listed = {str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence", [])}
        return Report(str(information.TransactionUID), frozenset(listed - failed.keys()), failed)
    except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError, EOFError):
        raise _Malformed(INVALID_ARGUMENT) from None

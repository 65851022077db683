"""What an association may take: time, the length of a PDU, memory.

pynetdicom reads a PDU of any announced length without a time-out, and keeps whatever a peer sends before an answer. It
has no hook for that, so its socket, its DIMSE provider and its state machine are subclassed here for this alone.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty

from pynetdicom import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicomnode.dimse.admission import INVALID_PARAMETER, DenialKind, abort
from pipeline.errors import UNREADABLE

LONGEST_PDU = 1 << 18
"""Bytes of the longest PDU that is read: 128 contexts of 25 transfer syntaxes, and more data than we announce."""

_MOST_UNANSWERED = 8  # requests; without negotiation of asynchronous operations 1 is allowed (PS3.7 D.3.3.3)
_PIECE = 1 << 16
_OF_THE_USER = frozenset(("Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15"))  # answers, data, release, abort


@dataclass(frozen=True)
class Bounds:
    """Of each association. held: bytes in memory of all of them; deny: called with what ends one of them, and why."""

    idle_s: float
    dataset_bytes: float
    receiving_bytes: float
    held: Callable[[], int]
    deny: Callable[[Association, DenialKind, str], None]


def receive(connection: socket.socket, count: int, until_s: float) -> bytearray:
    """Read so many bytes, fewer where the peer closes. Raises TimeoutError at `until_s`, whatever trickles in.

    until_s: on the clock of `time.monotonic`.
    """
    received = bytearray()
    while len(received) < count:
        connection.settimeout(max(until_s - time.monotonic(), 1e-3))
        piece = connection.recv(min(count - len(received), _PIECE))
        if not piece:
            break
        received += piece
        if time.monotonic() > until_s:
            raise TimeoutError
    return received


class BoundedSocket(AssociationSocket):
    """The socket of an association that was let in: bounded in time, in the length of a PDU and in what it may hold."""

    def __init__(self, association: Association, connection: socket.socket, request: bytes, bounds: Bounds) -> None:
        """request: the PDU that was read of the connection already."""
        super().__init__(association, connection)
        self._read_ahead = request
        self._bounds = bounds
        self._incoming = 0  # bytes of the message that is being received
        self._unanswered: deque[int] = deque()  # bytes of each message that waits for its response

    @property
    def held(self) -> int:
        """Bytes in memory that the peer sent: what is being received, and requests without an answer yet."""
        return self._incoming + sum(tuple(self._unanswered))

    @property
    def ready(self) -> bool:
        """Whether there is something to read; an association that has ended is closed without a look."""
        if self.assoc.is_aborted or self.assoc.is_released:
            return False
        return bool(self._read_ahead) or bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a part of a PDU. Raises OSError where a limit is broken, which ends the association."""
        if self._read_ahead:
            part, self._read_ahead = self._read_ahead[:nr_bytes], self._read_ahead[nr_bytes:]
            return bytearray(part)
        self._check_bounds(nr_bytes)
        self._incoming += nr_bytes
        assert self.socket is not None  # noqa: S101 - it is read only while it is open
        return receive(self.socket, nr_bytes, time.monotonic() + self._bounds.idle_s)

    def send(self, bytestream: bytes) -> None:
        """Send a PDU, for as long as the peer takes it."""
        if self.socket is not None:
            with suppress(OSError):  # it is closed meanwhile; sending says so
                self.socket.settimeout(self._bounds.idle_s)
            super().send(bytestream)

    def message_came(self) -> None:
        """A whole message was received."""
        self._unanswered.append(self._incoming)
        self._incoming = 0

    def message_answered(self) -> None:
        """A response was sent."""
        if self._unanswered:
            self._unanswered.popleft()

    def _check_bounds(self, count: int) -> None:
        before, after = self._incoming, self._incoming + count
        if count > LONGEST_PDU:
            self._end(DenialKind.SIZE, "a PDU is too long", INVALID_PARAMETER)
        if after > self._bounds.dataset_bytes:
            self._end(DenialKind.SIZE, "a data set is larger than listener.max_dataset_mb")
        # Every MiB is often enough: the sum walks over all associations.
        if before >> 20 != after >> 20 and self._bounds.held() > self._bounds.receiving_bytes:
            self._end(DenialKind.SIZE, "all data sets together are larger than listener.max_receiving_mb")
        if len(self._unanswered) > _MOST_UNANSWERED:
            self._end(DenialKind.PROTOCOL, "more requests than answers")

    def _end(self, kind: DenialKind, reason: str, abort_reason: int = 0) -> None:
        self._bounds.deny(self.assoc, kind, reason)
        self.send(abort(abort_reason))
        raise ConnectionAbortedError(reason)


class CarefulProvider(DIMSEServiceProvider):
    """pynetdicom's, but that damage in a fragment or a command set aborts the association instead of its thread."""

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of a P-DATA-TF."""
        try:
            super().receive_primitive(primitive)
        except UNREADABLE:
            self.dul.event_queue.put("Evt19")  # invalid PDU, PS3.8 9.2.2; as pynetdicom does for an invalid message


class CalmMachine(StateMachine):
    """pynetdicom's, but that an answer to what was aborted meanwhile is dropped instead of ending its thread."""

    def do_action(self, event: str) -> None:
        """Take a step (PS3.8 9.2.3); where the end of the connection is awaited there is none for our own answers."""
        if self.current_state == "Sta13" and event in _OF_THE_USER:
            with suppress(Empty):  # pynetdicom may ask for the same step twice
                self.dul.to_provider_queue.get_nowait()
        else:
            super().do_action(event)

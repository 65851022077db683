"""The door of the listener: TLS, the first PDU and admission, before pynetdicom spends two threads on a peer.

pynetdicom shakes hands in TLS where it accepts connections, so that one silent peer keeps out all others, and starts
two threads that poll for whoever connects. It has no hook for that: its server and request handler are subclassed here.
"""

from __future__ import annotations

import gc
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from socketserver import TCPServer
from threading import Lock, Semaphore
from threading import enumerate as running_threads
from typing import Any

from pynetdicom import Association, evt
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicomnode.dimse.admission import (
    INVALID_PARAMETER,
    UNEXPECTED_PDU,
    UNRECOGNIZED_PDU,
    Admission,
    Denial,
    DenialKind,
    Request,
    abort,
)
from dicomnode.dimse.bounds import (
    LONGEST_PDU,
    BoundedSocket,
    Bounds,
    CalmMachine,
    CarefulProvider,
    receive,
)
from dicomnode.dimse.security import explain
from dicomnode.sections import ListenerSettings
from pipeline.errors import UNREADABLE

log = logging.getLogger(__name__)

_MOST_WAITING = 100  # connections without an association; the oldest makes room for one more
_SWEEP_S = 5.0
_HEADER = struct.Struct(">BxI")  # type and length of a PDU, PS3.8 9.3.1


class Unwelcome(Exception):
    """A peer that is turned away: why, and the PDU that tells it."""

    def __init__(self, kind: DenialKind, reason: str, answer: bytes = b"", calling_ae: str = "") -> None:
        super().__init__(reason)
        self.kind = kind
        self.answer = answer
        self.calling_ae = calling_ae


class Doorkeeper(RequestHandler):
    """Deals with one connection, on a thread of its own, until it has become an association or has been turned away."""

    server: Listener
    request: socket.socket

    def handle(self) -> None:
        """Let an association begin, or turn the peer away."""
        until_s = time.monotonic() + self.server.settings.connect_seconds
        waiting = self.request
        try:
            self._shake_hands(until_s)
            pdu = self._read_request(until_s)
            self.server.leave(waiting)
            self._admit(pdu)
        except Unwelcome as error:
            self._turn_away(error)

    def _shake_hands(self, until_s: float) -> None:
        if self.server.ssl_context is None:
            return
        try:
            self.request.settimeout(max(until_s - time.monotonic(), 1e-3))
            context, waiting = self.server.ssl_context, self.request
            self.request = encrypted = context.wrap_socket(self.request, True, do_handshake_on_connect=False)
            self.server.waits_as(waiting, encrypted)
            encrypted.do_handshake()
        except TimeoutError:
            raise Unwelcome(DenialKind.SILENCE, "no TLS handshake in time") from None
        except ssl.SSLEOFError:
            raise Unwelcome(DenialKind.SILENCE, "") from None
        except ssl.SSLError as error:
            raise Unwelcome(DenialKind.TLS, f"TLS handshake failed: {explain(error)}") from None
        except OSError:
            raise Unwelcome(DenialKind.SILENCE, "") from None

    def _read_request(self, until_s: float) -> bytes:
        """The association request as it came; raises Unwelcome."""
        try:
            header = receive(self.request, _HEADER.size, until_s)
            if len(header) < _HEADER.size:
                raise Unwelcome(DenialKind.SILENCE, "")  # as the probe of a load balancer does
            kind, length = _HEADER.unpack(header)
            if kind != 0x01:
                known = 0x02 <= kind <= 0x07
                answer = abort(UNEXPECTED_PDU if known else UNRECOGNIZED_PDU)
                reason = "TLS to a listener without it" if kind == 0x16 else "no association request"
                raise Unwelcome(DenialKind.PROTOCOL, reason, answer)
            if length > LONGEST_PDU:
                raise Unwelcome(DenialKind.SIZE, "an association request is too long", abort(INVALID_PARAMETER))
            body = receive(self.request, length, until_s)
        except TimeoutError:
            raise Unwelcome(DenialKind.SILENCE, "no association request in time") from None
        except OSError:
            raise Unwelcome(DenialKind.SILENCE, "") from None
        if len(body) < length:
            raise Unwelcome(DenialKind.SILENCE, "")
        return bytes(header + body)

    def _admit(self, pdu: bytes) -> None:
        request = self._decode(pdu)
        with self.server.gate:  # between a look at how many there are and one more
            open_addresses = [association.requestor.address for association in self.server.open_associations()]
            rejection = self.server.admission.judge(request, open_addresses, time.monotonic())
            if rejection is None:
                self._begin(pdu)
                return
        raise Unwelcome(rejection.kind, rejection.reason, rejection.encode(), request.calling_ae)

    def _decode(self, pdu: bytes) -> Request:
        decoded = A_ASSOCIATE_RQ()
        try:
            decoded.decode(pdu)
            contexts = decoded.to_primitive().presentation_context_definition_list
            if not all(context.abstract_syntax for context in contexts):
                raise ValueError("a presentation context without abstract syntax")
            titles = (decoded.called_ae_title.strip(), decoded.calling_ae_title.strip())
        except UNREADABLE:
            reason = "an association request cannot be decoded"
            raise Unwelcome(DenialKind.PROTOCOL, reason, abort(INVALID_PARAMETER)) from None
        return Request(*titles, self.remote.address, decoded.protocol_version)

    def _begin(self, pdu: bytes) -> None:
        association = self._create_association()
        association.dul.event_queue.get_nowait()  # "connection open", of the socket that is replaced here
        association.dul.socket = BoundedSocket(association, self.request, pdu, self.server.bounds)
        association.dul.state_machine = CalmMachine(association.dul)
        association.dimse = CarefulProvider(association)
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()

    def _turn_away(self, error: Unwelcome) -> None:
        if str(error):
            self.server.deny(Denial(error.kind, error.calling_ae, str(self.client_address[0]), str(error)))
        with suppress(OSError, ValueError):  # it is gone, or there is no TLS to say it over
            self.request.settimeout(1.0)
            self.request.sendall(error.answer)
        self.server.shutdown_request(self.request)


class Listener(ThreadedAssociationServer):
    """The server: it accepts connections, and knows who waits and who is in."""

    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, *args: Any, settings: ListenerSettings, deny: Callable[[Denial], None], **kwargs: Any) -> None:
        """args, kwargs: of pynetdicom's server. deny: called with what a peer is denied, from many threads."""
        super().__init__(*args, request_handler=Doorkeeper, **kwargs)
        self.settings = settings
        self.deny = deny
        self.admission = Admission(settings)
        megabytes = (settings.max_dataset_mb * 1e6, settings.max_receiving_mb * 1e6)
        self.bounds = Bounds(settings.idle_seconds, *megabytes, self._held, self._deny_association)
        self.gate = Lock()
        self._waiting: dict[socket.socket, socket.socket] = {}  # in the order they came; what each is spoken with by
        self._waiting_lock = Lock()
        self._places = Semaphore(2 * _MOST_WAITING)
        self._sweep_at_s = 0.0
        self.bind(evt.EVT_DIMSE_RECV, lambda event: event.assoc.dul.socket.message_came())
        self.bind(evt.EVT_DIMSE_SENT, lambda event: event.assoc.dul.socket.message_answered())
        self.bind(evt.EVT_FSM_TRANSITION, self._watch)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and nothing more: pynetdicom would shake hands here."""
        connection, address = self.socket.accept()
        return connection, address

    def shutdown(self) -> None:
        """Stop accepting, and turn away who waits."""
        TCPServer.shutdown(self)  # pynetdicom's wants the server to be in a list that start_server keeps
        self.server_close()
        for request in list(self._waiting):
            self._turn_away(request)

    def service_actions(self) -> None:
        """Sweep, seldom: to collect garbage at each 60th connection, as pynetdicom does, makes a flood worse."""
        if time.monotonic() >= self._sweep_at_s:
            self._end_orphans()
            gc.collect()  # ended associations are cycles, and Python alone would let many of them pile up
            self._sweep_at_s = time.monotonic() + _SWEEP_S

    def _end_orphans(self) -> None:
        """End the connection of an association whose thread has failed: nobody else looks after it."""
        for thread in running_threads():
            if isinstance(thread, DULServiceProvider) and not thread.assoc.is_alive() and thread.assoc._server is self:
                thread.socket.close()
                thread.kill_dul()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is socketserver's
        """Log what no connection should be able to cause."""
        log.exception("a connection failed")

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread; where too many wait already, the oldest is turned away."""
        self._places.acquire()  # who was turned away needs a moment to go
        with self._waiting_lock:
            self._waiting[request] = request
            oldest = next(iter(self._waiting)) if len(self._waiting) > _MOST_WAITING else None
        if oldest:
            self._turn_away(oldest)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Deal with a connection, on its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.leave(request)
            self._places.release()

    def waits_as(self, request: socket.socket, encrypted: ssl.SSLSocket) -> None:
        """A connection that waits is spoken with in TLS from now on."""
        with self._waiting_lock:
            if request in self._waiting:
                self._waiting[request] = encrypted

    def leave(self, request: socket.socket) -> socket.socket | None:
        """A connection waits no more; returns it where it did."""
        with self._waiting_lock:
            return self._waiting.pop(request, None)

    def _turn_away(self, request: socket.socket) -> None:
        """Wake the thread of a connection that waits, which then finds its end."""
        if connection := self.leave(request):
            with suppress(OSError):
                address = str(connection.getpeername()[0])
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
                self.deny(Denial(DenialKind.SILENCE, "", address, "made room for another connection"))

    def open_associations(self) -> list[Association]:
        """Those that have not ended; a thread may outlive its association by some milliseconds."""
        associations = self.active_associations
        return [one for one in associations if not (one.is_released or one.is_aborted or one.is_rejected)]

    def _held(self) -> int:
        return sum(association.dul.socket.held for association in self.active_associations)

    def _deny_association(self, association: Association, kind: DenialKind, reason: str) -> None:
        requestor = association.requestor
        self.deny(Denial(kind, requestor.ae_title.strip(), requestor.address, reason))

    def _watch(self, event: evt.Event) -> None:
        """Note what makes the state machine abort (PS3.8 9.2.3, AA-8)."""
        if event.action == "AA-8":
            self._deny_association(event.assoc, DenialKind.PROTOCOL, "an invalid or unexpected PDU")

"""Audit messages as syslog (RFC 5424), by UDP (RFC 5426) and by TLS (RFC 5425), as PS3.15 A.6 and A.7 ask."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

from dicomnode.audit.messages import Event, Outcome, Source, to_xml

TIMEOUT_S = 10.0
_UDP_REFUSAL_S = 0.2  # a host that is there but has nobody on the port says so about as fast as it answers a ping
_FACILITY = 10  # security and authorization
_NOTICE, _WARNING = 5, 4
_UNPRINTABLE = re.compile("[^\x21-\x7e]")


def to_syslog(event: Event, source: Source, host: str, process_id: int) -> bytes:
    """The event as one line of RFC 5424, without the line's end."""
    severity = _NOTICE if event.outcome is Outcome.SUCCESS else _WARNING
    moment = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = _UNPRINTABLE.sub("", host)[:255] or "-"
    header = f"<{_FACILITY * 8 + severity}>1 {moment} {name} dicomnode {process_id} DICOM+RFC3881 - "
    return header.encode() + to_xml(event, source)


def send_udp(host: str, port: int, messages: Sequence[bytes]) -> None:
    """Each message as a datagram. Raises OSError where the host says that nobody listens; a lost one goes unnoticed."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as channel:
        channel.settimeout(_UDP_REFUSAL_S)
        channel.connect(address)
        for message in messages:
            channel.send(message)
        try:
            channel.recv(1)
        except TimeoutError:
            return


def send_tls(host: str, port: int, context: ssl.SSLContext, messages: Sequence[bytes]) -> None:
    """The messages with their lengths over one connection. Raises OSError where not all were taken.

    Syslog has no acknowledgement. But who gets a close_notify owes one in return (RFC 5425 4.4), after it read what
    came before: the connection is closed after each batch, and that answer stands for the acknowledgement.
    """
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        channel = _Channel(connection, context, host)
        channel.do(channel.tls.do_handshake)
        frames = b"".join(b"%d %b" % (len(message), message) for message in messages)
        channel.do(lambda: channel.tls.write(frames))
        channel.end()


class _Channel:
    """TLS with the bytes in our own hands.

    An SSLSocket takes a fatal alert for the peer's close_notify once it has sent its own, and of TLS 1.3 that a
    certificate is refused comes as late as that.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def do(self, step: Callable[[], Any]) -> None:
        """Take a step of the protocol, with as many bytes to and fro as it needs. Raises OSError."""
        while not self._try(step):
            if block := self._connection.recv(65536):
                self._incoming.write(block)
            else:
                self._incoming.write_eof()

    def end(self) -> None:
        """Say goodbye and wait for the answer. Raises OSError where the peer did not read all before it went."""
        self._try(self.tls.read)
        self._try(self.tls.unwrap)
        try:
            while True:
                self.do(self.tls.read)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return  # goodbye, or gone without a word: where it had not read all, the connection is reset instead

    def _try(self, step: Callable[[], Any]) -> bool:
        """Whether the step is done, with the bytes that are here."""
        try:
            step()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._connection.sendall(self._outgoing.read())
        return True

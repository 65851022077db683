"""Real syslog receivers on this machine, by UDP and by TLS, which come and go, and certificates for them."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread


class UdpReceiver:
    """Keeps every datagram (RFC 5426)."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[bytes] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (message := self._socket.recv(65536)) != b"stop":
            self.received.append(message)

    def stop(self) -> None:
        """After all that came is read."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            channel.sendto(b"stop", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()


class TlsReceiver:
    """Keeps every message of every connection, by its octet count (RFC 5425)."""

    def __init__(
        self, context: ssl.SSLContext, port: int = 0, *, is_polite: bool = True, dies_after_bytes: int | None = None
    ) -> None:
        """is_polite: answers a close_notify.

        dies_after_bytes: reset the connection after having read so many, as a process that is killed.
        """
        self.received: list[bytes] = []
        self.subjects: list[object] = []
        self._context = context
        self._is_polite = is_polite
        self._dies_after_bytes = dies_after_bytes
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with suppress(OSError), connection, self._context.wrap_socket(connection, server_side=True) as channel:
                    self._serve(channel)

    def _serve(self, channel: ssl.SSLSocket) -> None:
        self.subjects.append((channel.getpeercert() or {}).get("subject"))
        if self._dies_after_bytes is not None:
            channel.recv(self._dies_after_bytes)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        stream = b""
        while block := channel.recv(65536):
            stream += block
        self.received += split_frames(stream)
        if self._is_polite:
            channel.unwrap()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()


def split_frames(stream: bytes) -> list[bytes]:
    """MSG-LEN SP SYSLOG-MSG, again and again (RFC 5425 4.3)."""
    messages = []
    while stream:
        length, _, rest = stream.partition(b" ")
        messages.append(rest[: int(length)])
        stream = rest[int(length) :]
    return messages


@contextmanager
def running(receiver: UdpReceiver | TlsReceiver) -> Iterator[UdpReceiver | TlsReceiver]:
    """A receiver for a while; at the end it has read all that was sent."""
    try:
        yield receiver
    finally:
        receiver.stop()


def write_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    return certificate, key

"""From the trail to a syslog server: in order, nothing lost while the server is away, by UDP and by TLS."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from dicomnode.audit.events import application_started
from dicomnode.audit.forwarding import Forwarder
from dicomnode.audit.messages import Entity, Source
from dicomnode.audit.syslog import send_tls, send_udp
from dicomnode.audit.trail import Trail
from tests.audit_messages import kind, parse, read_lines
from tests.syslog_server import TlsReceiver, UdpReceiver, running, write_certificate

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
AWAY = (ConnectionError, ssl.SSLError)


class Server:
    """A server that takes what it gets, or is away."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.is_away = False

    def send(self, messages: Sequence[bytes]) -> None:
        if self.is_away:
            raise ConnectionRefusedError(111, "connection refused")
        self.received += messages


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "audit", Source("SOURCE"), Entity("4711", "PANCREAS", "node"), lambda reason: None)


def record(trail: Trail, count: int, at: datetime = NOW) -> None:
    for number in range(count):
        trail.record(application_started(Entity(str(number), "PANCREAS", "node"), at))


def forwarder(trail: Trail, send: Callable[[Sequence[bytes]], None]) -> Forwarder:
    """As after a restart: nothing but what is on disk is known."""
    return Forwarder(trail.folder, send, lambda reason: None)


def test_each_message_once_and_in_order_across_days_and_restarts(trail: Trail) -> None:
    server = Server()
    for day in range(3):
        record(trail, 4, NOW + timedelta(days=day))
        assert forwarder(trail, server.send).step() == 4
    record(trail, 2, NOW + timedelta(days=3))
    record(trail, 2, NOW + timedelta(days=4))
    one = forwarder(trail, server.send)
    assert [one.step() for _ in range(3)] == [2, 2, 0]
    assert server.received == read_lines(trail.folder)


def test_what_the_server_did_not_take_is_sent_when_it_is_back(trail: Trail) -> None:
    server = Server()
    server.is_away = True
    for _ in range(3):
        record(trail, 2)
        with pytest.raises(ConnectionRefusedError):
            forwarder(trail, server.send).step()
    server.is_away = False
    assert forwarder(trail, server.send).step() == 6
    assert server.received == read_lines(trail.folder)


def test_a_long_trail_goes_in_batches_of_bounded_size(trail: Trail) -> None:
    record(trail, 500)
    sizes: list[int] = []
    one = forwarder(trail, lambda messages: sizes.append(sum(map(len, messages))))
    while one.step():
        pass
    assert len(sizes) > 1
    assert max(sizes) <= 256 * 1024
    assert sum(sizes) == sum(map(len, read_lines(trail.folder)))


def test_a_half_line_is_passed_over_and_a_line_in_the_making_waits(trail: Trail) -> None:
    server = Server()
    (trail.folder / "audit-2026-01-01.log").write_bytes(b"<85>1 2026-01-01T00:00:00Z half a li")
    record(trail, 1)
    file = trail.folder / "audit-2026-01-02.log"
    (whole,) = file.read_bytes().splitlines()
    file.write_bytes(whole + b"\n" + whole[:50])
    one = forwarder(trail, server.send)
    assert [one.step(), one.step()] == [1, 0]
    file.write_bytes(whole + b"\n" + whole[:50] + b"\n" + whole + b"\n")  # ended, as `Trail` does
    one.step()
    assert server.received == [whole, whole]


def test_a_file_that_the_operator_took_away_holds_up_nothing(trail: Trail) -> None:
    server = Server()
    record(trail, 2)
    forwarder(trail, server.send).step()
    record(trail, 2, NOW + timedelta(days=1))
    (trail.folder / "audit-2026-01-02.log").unlink()
    assert forwarder(trail, server.send).step() == 2


class Patience(Event):
    """Lets a run go on for so many waits, and notes how long they would have been."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.waits_s: list[float] = []
        self._left = waits

    def wait(self, timeout: float | None = None) -> bool:
        self.waits_s.append(timeout or 0.0)
        if len(self.waits_s) == self._left:
            self.set()
        return self.is_set()


def test_a_run_waits_longer_and_longer_and_reports_each_change_once(trail: Trail) -> None:
    server, reports = Server(), list[str | None]()
    server.is_away = True
    record(trail, 1)
    patience = Patience(9)
    Forwarder(trail.folder, server.send, reports.append).run(patience)
    assert patience.waits_s == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    server.is_away = False
    Forwarder(trail.folder, server.send, reports.append).run(Patience(3))
    assert reports == ["the syslog server does not take the audit trail: connection refused", None]
    assert len(server.received) == 1


def test_of_two_that_share_a_trail_one_forwards_until_it_ends(trail: Trail) -> None:
    server, other = Server(), Server()
    record(trail, 3)
    first, second = (Forwarder(trail.folder, one.send, lambda reason: None) for one in (server, other))

    class Meanwhile(Patience):
        def wait(self, timeout: float | None = None) -> bool:
            if not self.waits_s:
                second.run(Patience(2))
            return super().wait(timeout)

    first.run(Meanwhile(2))
    assert (len(server.received), other.received) == (3, [])
    record(trail, 1)
    second.run(Patience(2))
    assert len(other.received) == 1


def test_udp_each_message_is_a_datagram_and_a_dead_receiver_is_noticed(trail: Trail) -> None:
    record(trail, 2)
    with running(UdpReceiver()) as receiver:
        send = partial(send_udp, "127.0.0.1", receiver.port)
        assert forwarder(trail, send).step() == 2
    assert receiver.received == read_lines(trail.folder)
    record(trail, 2)
    with pytest.raises(ConnectionRefusedError):
        forwarder(trail, send).step()
    with running(UdpReceiver(receiver.port)) as again:
        assert forwarder(trail, send).step() == 2
    assert receiver.received + again.received == read_lines(trail.folder)
    header, _, xml = again.received[0].partition(b"<?xml")
    assert re.fullmatch(rb"<85>1 \S+Z node dicomnode \d+ DICOM\+RFC3881 - ", header)
    assert kind(parse(b"<?xml" + xml)) == "Application Start"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    return {name: write_certificate(folder, name) for name in ("server", "client", "stranger")}


def contexts(certificates: dict[str, tuple[Path, Path]], client: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server that asks for the certificate of `client`, and of a client that shows its own."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificates["server"])
    server.load_verify_locations(certificates["client"][0])
    server.verify_mode = ssl.CERT_REQUIRED
    node = ssl.create_default_context(cafile=str(certificates["server"][0]))
    node.load_cert_chain(*certificates[client])
    return server, node


def test_tls_nothing_is_lost_when_the_receiver_is_killed_in_between(
    trail: Trail, certificates: dict[str, tuple[Path, Path]]
) -> None:
    server, node = contexts(certificates, "client")
    record(trail, 3)
    with running(TlsReceiver(server)) as receiver:
        send = partial(send_tls, "127.0.0.1", receiver.port, node)
        assert forwarder(trail, send).step() == 3
    assert receiver.received == read_lines(trail.folder)
    assert receiver.subjects == [((("commonName", "client"),),)]

    record(trail, 200)
    with pytest.raises(AWAY):
        forwarder(trail, send).step()
    with running(TlsReceiver(server, receiver.port, dies_after_bytes=1000)), pytest.raises(AWAY):
        forwarder(trail, send).step()
    with running(TlsReceiver(server, receiver.port)) as again:
        one = forwarder(trail, send)
        while one.step():
            pass
    assert receiver.received + again.received == read_lines(trail.folder)


def test_tls_a_receiver_that_closes_without_a_word_has_taken_what_it_read(
    trail: Trail, certificates: dict[str, tuple[Path, Path]]
) -> None:
    server, node = contexts(certificates, "client")
    record(trail, 3)
    with running(TlsReceiver(server, is_polite=False)) as receiver:
        one = forwarder(trail, partial(send_tls, "127.0.0.1", receiver.port, node))
        assert [one.step(), one.step()] == [3, 0]
    assert receiver.received == read_lines(trail.folder)


def test_tls_a_stranger_is_not_let_in_and_a_strange_server_gets_nothing(
    trail: Trail, certificates: dict[str, tuple[Path, Path]]
) -> None:
    record(trail, 1)
    server, stranger = contexts(certificates, "stranger")
    with running(TlsReceiver(server)) as receiver:
        for _ in range(10):  # the refusal comes after the handshake, before or after the messages are sent
            with pytest.raises(AWAY):
                forwarder(trail, partial(send_tls, "127.0.0.1", receiver.port, stranger)).step()
    trusting_none = ssl.create_default_context()
    with running(TlsReceiver(server)) as other, pytest.raises(ssl.SSLCertVerificationError):
        forwarder(trail, partial(send_tls, "127.0.0.1", other.port, trusting_none)).step()
    assert receiver.received == other.received == []

"""The door of the listener: whatever knocks, C-ECHO is answered, and what an association may take is bounded."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, Association, build_context, evt
from pynetdicom.sop_class import CTImageStorage, Verification

from dicomnode import dimse
from dicomnode.dimse.door import _MOST_WAITING, Listener
from dicomnode.errors import Unavailable
from dicomnode.sections import ListenerSettings
from tests.certificates import Identity, make_identity
from tests.served import wait_for

NOW = datetime.now(UTC) + timedelta(hours=1)


class Node:
    """A listener that keeps what it stores and what it denies."""

    def __init__(self, listener: Listener, denials: list[dimse.Denial], stored: list[int]) -> None:
        self.listener = listener
        self.denials = denials
        self.stored = stored
        self.port = int(listener.server_address[1])
        self.peer = dimse.Peer("PANCREAS", "127.0.0.1", self.port)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 20)

    def ask(self, data: bytes) -> bytes:
        """What the node answers to some bytes before it closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def associate(self, calling_ae: str = "SENDER", contexts: int = 1) -> Association:
        entity = AE(calling_ae)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        proposed = [build_context(CTImageStorage, ExplicitVRLittleEndian) for _ in range(contexts)]
        return entity.associate("127.0.0.1", self.port, contexts=proposed)

    def kinds(self) -> list[str]:
        return [denial.kind for denial in self.denials]


@contextmanager
def listening(security: ssl.SSLContext | None = None, **settings: Any) -> Iterator[Node]:
    denials: list[dimse.Denial] = []
    stored: list[int] = []

    def store(event: evt.Event) -> int:
        stored.append(len(event.request.DataSet.getvalue()))
        return 0x0000

    service = dimse.Service(evt.EVT_C_STORE, [CTImageStorage], [ExplicitVRLittleEndian], store)
    before = threading.active_count()
    listener = dimse.listen(ListenerSettings(port=0, **settings), [service], security, denials.append)
    try:
        yield Node(listener, denials, stored)
    finally:
        dimse.close(listener, 5.0)
    wait_for("no thread is left", lambda: threading.active_count() <= before, 15)


def read_all(connection: socket.socket) -> bytes:
    """Until the peer closes or resets."""
    received = b""
    try:
        while piece := connection.recv(4096):
            received += piece
    except ConnectionResetError:
        pass
    return received


def echoes(node: Node, calling_ae: str = "SENDER") -> bool:
    dimse.echo(node.peer, calling_ae, 10.0)
    return True


@cache
def request_pdu() -> bytes:
    """An association request as pynetdicom writes it."""
    sent: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        entity = AE("SENDER")
        entity.acse_timeout = 0.1
        entity.associate(
            "127.0.0.1",
            server.getsockname()[1],
            contexts=[build_context(Verification)],
            evt_handlers=[(evt.EVT_DATA_SENT, lambda event: sent.append(event.data))],
        )
    return sent[0]


def image(megabytes: float) -> Dataset:
    """As much of one as the listener looks at."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.PixelData = bytes(int(megabytes * 1e6))
    dataset["PixelData"].VR = "OW"
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


ECHO_REQUEST = bytes.fromhex(
    "04000000004a0000004601030000000004000000380000000000020012000000312e322e3834302e31303030382e312e31000000000102"
    "00000030000000100102000000010000000008020000000101"
)
ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02"


@pytest.mark.parametrize(
    ("data", "answer", "kind"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ABORT + b"\x01", "protocol"),
        (b"\x16\x03\x01\x02\x00\x01", ABORT + b"\x01", "protocol"),
        (b"\x04\x00\xff\xff\xff\xff", ABORT + b"\x02", "protocol"),
        (b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00", ABORT + b"\x02", "protocol"),
        (b"\x01\x00\xff\xff\xff\xff", ABORT + b"\x06", "size"),
        (b"\x01\x00\x00\x00\x00\x44" + b"\xff" * 68, ABORT + b"\x06", "protocol"),
        (b"\x01\x00\x00\x00\x00\x00", ABORT + b"\x06", "protocol"),
    ],
    ids=["http", "tls", "data", "abort", "2^32-1", "garbage", "empty"],
)
def test_case_12_what_is_no_association_request_is_aborted(data: bytes, answer: bytes, kind: str) -> None:
    with listening() as node:
        assert node.ask(data) in (answer, b"")  # unread bytes make the kernel reset, which may overtake the answer
        assert node.kinds() == [kind]
        assert echoes(node)


def test_case_12_the_probe_of_a_load_balancer_is_not_worth_a_word() -> None:
    with listening() as node:
        for _ in range(20):
            node.connect().close()
        assert echoes(node)
        assert node.denials == []


def test_case_12_half_open_connections_keep_nobody_out() -> None:
    with listening() as node, ExitStack() as stack:
        silent = [stack.enter_context(node.connect()) for _ in range(3 * _MOST_WAITING)]
        assert echoes(node)
        wait_for("the oldest made room", lambda: node.kinds().count("silence") >= 2 * _MOST_WAITING)
        assert silent[0].recv(1) == b""
        assert threading.active_count() < _MOST_WAITING + 20


@pytest.mark.parametrize("first", [b"", b"\x01", b"\x01\x00\x00\x00\x00\xff" + b"\x00" * 50])
def test_case_12_who_asks_for_no_association_in_time_is_let_go(first: bytes) -> None:
    with listening(connect_seconds=0.5) as node:
        assert node.ask(first) == b""
        wait_for("the silence is noted", lambda: node.kinds() == ["silence"])


def test_case_12_a_request_that_trickles_in_ends_at_the_same_time() -> None:
    with listening(connect_seconds=0.5) as node, node.connect() as connection:
        for byte in request_pdu()[:20]:
            with suppress(OSError):
                connection.sendall(bytes([byte]))
            time.sleep(0.05)
        assert node.kinds() == ["silence"]


def test_case_12_a_peer_silent_within_a_pdu_is_aborted() -> None:
    with listening(idle_seconds=0.5) as node, node.connect() as connection:
        connection.sendall(request_pdu())
        assert connection.recv(4096)[:1] == b"\x02"
        connection.sendall(b"\x04\x00\x00\x00\x10\x00half of it")
        read_all(connection)
        wait_for("the association is gone", lambda: not node.listener.active_associations)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x04\x00\xff\xff\xff\xff", "size"),
        (b"\x99\x00\x00\x00\x00\x00", "protocol"),
        (b"\x02\x00\x00\x00\x00\x04abcd", "protocol"),
        (b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03", "protocol"),
        (b"\x04\x00\x00\x00\x00\x0a\x00\x00\x00\x06\x01\x03\xff\xff\xff\xff", "protocol"),
        (b"\x04\x00\x00\x00\x00\x05\x00\x00\x00\x01\x01", "protocol"),
        (ECHO_REQUEST * 3 + b"\x99\x00\x00\x00\x00\x00", "protocol"),
    ],
    ids=["2^32-1", "type", "accept", "empty command", "garbage command", "no header", "answered late"],
)
def test_case_12_garbage_within_an_association_aborts_it(
    data: bytes, kind: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    with listening() as node, node.connect() as connection, caplog.at_level(logging.CRITICAL):
        connection.sendall(request_pdu())
        assert connection.recv(4096)[:1] == b"\x02"
        connection.sendall(data)
        read_all(connection)
        wait_for("the association is gone", lambda: not node.listener.active_associations)
        assert node.kinds() == [kind]
        assert node.denials[0].calling_ae == "SENDER"
        assert echoes(node)
    assert [str(warning.message) for warning in recwarn if "thread" in str(warning.message)] == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_association_whose_thread_failed_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    request = request_pdu()
    monkeypatch.setattr("pynetdicom.acse.ACSE.negotiate_association", fail)
    with listening() as node, node.connect() as connection:
        connection.sendall(request)
        assert connection.recv(1) == b""


def test_case_12_128_contexts_are_negotiated() -> None:
    with listening() as node:
        association = node.associate(contexts=128)
        assert len(association.accepted_contexts) == 128
        association.release()


def test_case_12_a_data_set_above_the_limit_is_aborted_while_it_comes() -> None:
    with listening(max_dataset_mb=2) as node:
        association = node.associate()
        assert association.send_c_store(image(1)).Status == 0
        assert "Status" not in association.send_c_store(image(5))
        assert node.kinds() == ["size"]
        assert len(node.stored) == 1
        assert echoes(node)


def test_case_12_all_data_sets_together_have_a_limit() -> None:
    with listening(max_receiving_mb=3) as node:
        association = node.associate()
        assert association.send_c_store(image(2)).Status == 0
        assert association.send_c_store(image(2)).Status == 0  # the first is in memory no more
        assert "Status" not in association.send_c_store(image(5))
        assert [denial.reason for denial in node.denials] == [
            "all data sets together are larger than listener.max_receiving_mb"
        ]


def test_case_12_requests_that_do_not_wait_for_answers_are_aborted() -> None:
    with listening() as node, node.connect() as connection:
        connection.sendall(request_pdu())
        assert connection.recv(4096)[:1] == b"\x02"
        connection.sendall(ECHO_REQUEST * 2000)
        assert b"\x07\x00\x00\x00\x00\x04" in read_all(connection) or node.kinds() == ["protocol"]
        assert node.kinds() == ["protocol"]
        assert echoes(node)


def test_case_12_associations_have_a_limit_and_the_next_is_free_when_one_ends() -> None:
    with listening(max_associations_per_address=2) as node:
        first, second = node.associate(), node.associate()
        with pytest.raises(Unavailable, match=r"Rejected Transient.*Local limit exceeded"):
            echoes(node)
        first.release()
        assert echoes(node)
        second.release()
        for _ in range(10):
            assert echoes(node)
        assert node.kinds() == ["limit"]


def test_case_13_a_stranger_is_rejected_and_noted() -> None:
    with listening(allowed_callers=("FRIEND@127.0.0.0/8", "FAR@10.0.0.0/8"), require_called_ae=True) as node:
        assert echoes(node, "FRIEND")
        for stranger in ("STRANGER", "FAR"):
            with pytest.raises(Unavailable, match="Rejected Permanent, Calling AE title not recognised"):
                echoes(node, stranger)
        with pytest.raises(Unavailable, match="Rejected Permanent, Called AE title not recognised"):
            dimse.echo(dimse.Peer("OTHER", "127.0.0.1", node.port), "FRIEND", 10.0)
        assert [(denial.kind, denial.calling_ae, denial.address) for denial in node.denials] == [
            ("caller", "STRANGER", "127.0.0.1"),
            ("caller", "FAR", "127.0.0.1"),
            ("called", "FRIEND", "127.0.0.1"),
        ]


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Identity, Identity]:
    """The node's, a friend's of the same authority, and a stranger's of another."""
    folder = tmp_path_factory.mktemp("tls")
    node = make_identity(folder / "node")
    return node, make_identity(folder / "friend", node), make_identity(folder / "stranger")


@contextmanager
def listening_in_tls(identities: tuple[Identity, ...], **settings: Any) -> Iterator[Node]:
    with listening(dimse.server_context(identities[0].settings(), NOW), **settings) as node:
        yield node


def secured(node: Node, identity: Identity, ca: Path | None = None) -> dimse.Peer:
    return dimse.Peer("PANCREAS", "localhost", node.port, dimse.client_context(identity.settings(), NOW, ca))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_friend_is_answered_over_tls(identities: tuple[Identity, ...], version: ssl.TLSVersion) -> None:
    with listening_in_tls(identities) as node:
        peer = secured(node, identities[1])
        assert peer.security is not None
        peer.security.maximum_version = version
        dimse.echo(peer, "FRIEND", 10.0)
        assert node.denials == []


def anonymous(identities: tuple[Identity, ...]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=identities[0].ca)


def strange(identities: tuple[Identity, ...]) -> ssl.SSLContext:
    return dimse.client_context(identities[2].settings(), NOW, identities[0].ca)


def outdated(identities: tuple[Identity, ...]) -> ssl.SSLContext:
    context = dimse.client_context(identities[1].settings(), NOW)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (anonymous, "peer did not return a certificate"),
        (strange, "(self-signed certificate in certificate chain|unable to get local issuer certificate)"),
        (outdated, "(unsupported protocol|no shared cipher|version too low|internal error)"),
        (lambda _: None, "(wrong version number|http request|packet length too long|record layer failure)"),
    ],
    ids=["no certificate", "another authority", "TLS 1.1", "plain"],
)
def test_a_stranger_gets_no_further_than_the_handshake(
    identities: tuple[Identity, ...], make: Callable[[tuple[Identity, ...]], ssl.SSLContext | None], reason: str
) -> None:
    with listening_in_tls(identities) as node:
        stranger = dimse.Peer("PANCREAS", "localhost", node.port, make(identities))
        with pytest.raises(Unavailable, match=r"(TLS: |no association)"):
            dimse.echo(stranger, "STRANGER", 5.0)
        assert set(node.kinds()) == {"tls"}
        assert re.fullmatch(f"TLS handshake failed: {reason}", node.denials[0].reason)
        dimse.echo(secured(node, identities[1]), "FRIEND", 10.0)


def test_case_12_the_probe_of_a_load_balancer_is_not_worth_a_word_over_tls(identities: tuple[Identity, ...]) -> None:
    with listening_in_tls(identities) as node:
        for _ in range(20):
            node.connect().close()
        dimse.echo(secured(node, identities[1]), "FRIEND", 10.0)
        assert node.denials == []


def test_a_handshake_that_hangs_keeps_nobody_out(identities: tuple[Identity, ...]) -> None:
    with listening_in_tls(identities, connect_seconds=2) as node, node.connect() as silent, node.connect() as started:
        started.sendall(b"\x16\x03\x01\x02\x00\x01")
        dimse.echo(secured(node, identities[1]), "FRIEND", 10.0)
        assert read_all(silent) == b""
        wait_for("both are noted", lambda: node.kinds() == ["silence", "silence"])


def test_a_destination_that_is_another_is_named(identities: tuple[Identity, ...]) -> None:
    with listening_in_tls(identities) as node:
        with pytest.raises(Unavailable, match=r"TLS: .*(self-signed|issuer)"):
            dimse.echo(secured(node, identities[1], identities[2].ca), "FRIEND", 5.0)
        by_address = dimse.Peer("PANCREAS", "127.0.0.1", node.port, secured(node, identities[1]).security)
        with pytest.raises(Unavailable, match="TLS: ip address mismatch"):
            dimse.echo(by_address, "FRIEND", 5.0)

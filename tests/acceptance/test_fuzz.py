"""Hostile bytes, to the listener's socket and to the series reader; `make fuzz` tries more of them.

A failure prints its example: it becomes a test of what was at fault.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dicomnode import dimse
from dicomnode.dimse import Peer
from dicomnode.receiver import Unacceptable, _read_header
from dicomnode.store import receiving
from pipeline.errors import Refused
from pipeline.series import open_series, read_volume
from tests.bench import Bench
from tests.fuzz.corpus import SYNTAXES, answers, conversation, multiframe, series
from tests.fuzz.mutations import Mutation, mutate, mutations
from tests.served import wait_for

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
_ROOM_BYTES = 1 << 30
_PATIENCE_S, _ANSWER_S = 30.0, 0.5


def fuzzed(examples: int) -> settings:
    """The short form tries the same examples every time."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def little_memory() -> Iterator[None]:
    """No more than a gigabyte beyond what this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def read(folder: Path, blobs: list[bytes]) -> bool:
    """Whether they are read as a series; any error but Refused and Unacceptable goes through."""
    paths = [folder / f"{number}.dcm" for number in range(len(blobs))]
    for path, blob in zip(paths, blobs, strict=True):
        path.write_bytes(blob)
    with suppress(Unacceptable):
        _read_header(blobs[0])
    try:
        read_volume(open_series(paths))
    except Refused:
        return False
    return True


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_the_seeds_are_valid(tmp_path: Path, syntax: str) -> None:
    assert read(tmp_path, list(series(syntax)))


def test_the_multiframe_seed_is_valid(tmp_path: Path) -> None:
    assert read(tmp_path, [multiframe()])


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.usefixtures("little_memory")
def test_a_damaged_series_is_read_or_refused(tmp_path: Path, syntax: str) -> None:
    @fuzzed(40)
    @given(mutations())
    def check(changes: list[Mutation]) -> None:
        first, *others = series(syntax)
        read(tmp_path, [mutate(first, changes), *others])

    check()


@pytest.mark.usefixtures("little_memory")
def test_a_damaged_multiframe_file_is_read_or_refused(tmp_path: Path) -> None:
    @fuzzed(60)
    @given(mutations())
    @example([("cut", 0.69921875, 0, 0), ("cut", 0.701171875, 0, 0)])  # in the middle of a sequence: pydicom's OSError
    def check(changes: list[Mutation]) -> None:
        read(tmp_path, [mutate(multiframe(), changes)])

    check()


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Peer]]:
    bench = Bench(tmp_path_factory.mktemp("node"), 1)
    with bench.listening() as peer:
        dimse.echo(peer, "BEFORE", _PATIENCE_S)
        yield bench, peer
    bench.database.close()


def talk(peer: Peer, parts: Iterable[bytes], chunk: int = 4096) -> bytes:
    """Send the parts in chunks, a while after each for an answer; then listen until the other side hangs up."""
    received = b""
    with socket.create_connection((peer.host, peer.port)) as connection, suppress(ConnectionError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            for start in range(0, len(part), chunk):
                connection.sendall(part[start : start + chunk])
            connection.settimeout(_ANSWER_S)
            with suppress(TimeoutError):
                received += connection.recv(65536)
        with suppress(OSError):  # it may have hung up
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_PATIENCE_S)  # TimeoutError goes through: the listener hangs
        while answer := connection.recv(65536):
            received += answer
    return received


def test_the_conversation_is_valid(listener: tuple[Bench, Peer]) -> None:
    assert answers(talk(listener[1], conversation())) == [2, 4, 6]  # accepted, C-STORE response, release response


def test_case_12_a_damaged_conversation_leaves_the_listener_as_it_was(listener: tuple[Bench, Peer]) -> None:
    bench, peer = listener
    threads = threading.active_count()

    @fuzzed(40)
    @given(mutations(), st.sampled_from((0, 1, 1, 1, 2)), st.integers(1, 2000))
    def check(changes: list[Mutation], damaged: int, chunk: int) -> None:
        parts = [mutate(part, changes) if which == damaged else part for which, part in enumerate(conversation())]
        talk(peer, parts, chunk)
        dimse.echo(peer, "AFTER", _PATIENCE_S)

    check()
    wait_for("the threads end", lambda: threading.active_count() <= threads, _PATIENCE_S)
    files = [path for path in (bench.archive.path("received")).rglob("*") if path.is_file()]
    with bench.database.read() as connection:
        assert {path.relative_to(bench.archive.path(".")).as_posix() for path in files} == receiving.stored_paths(
            connection
        )
    assert not list(bench.archive.path("incoming").iterdir())

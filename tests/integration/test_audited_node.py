"""A real node's audit trail: what is on it, what syslog gets of it, and that logs hold nothing of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from dicomnode import dimse
from dicomnode.dimse import Peer
from dicomnode.errors import Unavailable
from dicomnode.jobs import RetryPolicy
from dicomnode.lifecycle import Backoff
from dicomnode.node import Actor, Node, utc_now
from dicomnode.settings import Settings
from dicomnode.worker import Worker, Workplace
from tests.audit_messages import kind, read_lines, read_messages
from tests.bench import SMALL, Pacs
from tests.fakes import threshold_model
from tests.phantom import PhantomOptions, write_series
from tests.served import take_port, wait_for
from tests.syslog_server import UdpReceiver, running

IN_THIS_PROCESS = frozenset(Actor) - {Actor.WORKER, Actor.WEB}


class Audited:
    """A node in threads of this process, whose worker is stepped by hand."""

    def __init__(self, folder: Path, pacs_port: int, syslog_port: int) -> None:
        port = take_port()
        self.settings = Settings(
            listener={"port": port, "allowed_callers": ["SENDER"]},
            archive={"path": folder / "archive", "reserve_gb": 0},
            series={"quiet_seconds": 0.3, "minimum_slices": 10},
            destinations=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port}],
            audit={"syslog_host": "127.0.0.1", "syslog_protocol": "udp", "syslog_port": syslog_port},
        )
        self.peer = Peer("PANCREAS", "127.0.0.1", port)
        self.trail = folder / "audit"
        self._node = Node(self.settings, None)
        self._thread = Thread(target=self._node.serve, args=(IN_THIS_PROCESS,))

    def start(self) -> None:
        self._thread.start()
        wait_for("the node listens", self.is_listening)

    def is_listening(self) -> bool:
        try:
            dimse.echo(self.peer, "SENDER", 5.0)
        except Unavailable:
            return False
        return True

    def work(self) -> bool:
        place = Workplace(threshold_model(), "cpu", 1, 60.0, RetryPolicy(1, Backoff(1, 1)), ("pacs",))
        node = self._node
        return Worker(node._database, node._archive, place, utc_now, witness=node._auditor.used).step()

    def stop(self) -> None:
        self._node.stop()
        self._thread.join(60)

    def kinds(self) -> list[str]:
        return [kind(message) for message in read_messages(self.trail)]


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    return write_series(tmp_path, PhantomOptions(**SMALL))


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    pacs = Pacs()
    pacs.start()
    yield pacs
    pacs.stop()


@pytest.fixture
def audited(tmp_path: Path, pacs: Pacs) -> Iterator[Callable[[int], Audited]]:
    made: list[Audited] = []

    def make(syslog_port: int) -> Audited:
        made.append(Audited(tmp_path, int(pacs._server.server_address[1]), syslog_port))
        made[0].start()
        return made[0]

    yield make
    for node in made:
        node.stop()


def test_case_34_patients_stand_on_the_audit_trail_and_in_no_log(
    audited: Callable[[int], Audited], pacs: Pacs, slices: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dicomnode")
    with running(UdpReceiver()) as syslog:
        node = audited(syslog.port)
        with pytest.raises(Unavailable, match="not recognised"):
            dimse.echo(node.peer, "STRANGER", 5.0)
        outcomes = [outcome.event for _, outcome in dimse.send(node.peer, "SENDER", slices, 5.0)]
        assert outcomes == ["accept"] * 24
        wait_for("the series is analysed", node.work)
        wait_for("the results are at the archive", lambda: len(pacs.received) == 2)
        wait_for("the sending is recorded", lambda: node.kinds().count("DICOM Instances Transferred") == 2)
        wait_for("syslog has it all", lambda: len(syslog.received) == len(read_lines(node.trail)))
        node.stop()
    assert node.kinds()[:4] == [
        "Application Start",
        "Attach",
        "Node Authentication",
        "Begin Transferring DICOM Instances",
    ]
    assert sorted(node.kinds()[4:7]) == [
        "DICOM Instances Accessed", "DICOM Instances Transferred", "DICOM Instances Transferred",
    ]  # fmt: skip
    assert node.kinds()[7:] == ["Detach", "Application Stop"]
    assert syslog.received == read_lines(node.trail)[: len(syslog.received)]

    instance = pydicom.dcmread(slices[0])
    subjects = [
        [found.get("ParticipantObjectID") for found in message.findall("ParticipantObjectIdentification")]
        for message in read_messages(node.trail)[3:7]
    ]
    assert subjects == [[instance.StudyInstanceUID, instance.PatientID]] * 4
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "job 1" in logged
    for identifier in (instance.PatientID, str(instance.PatientName), instance.StudyInstanceUID):
        assert identifier not in logged


def test_case_10_what_came_before_an_abort_is_recorded(audited: Callable[[int], Audited], slices: list[Path]) -> None:
    node = audited(take_port())
    entity = AE("SENDER")
    entity.add_requested_context(CTImageStorage)
    association = entity.associate(node.peer.host, node.peer.port, ae_title=node.peer.ae_title)
    for file in slices[:3]:
        assert association.send_c_store(pydicom.dcmread(file)).Status == 0x0000
    association.abort()
    wait_for("the transfer is recorded", lambda: "DICOM Instances Transferred" in node.kinds())
    message = read_messages(node.trail)[node.kinds().index("DICOM Instances Transferred")]
    assert [found.get("NumberOfInstances") for found in message.iter("SOPClass")] == ["3"]


def test_a_syslog_server_that_is_away_holds_nobody_up(audited: Callable[[int], Audited], slices: list[Path]) -> None:
    node = audited(port := take_port())
    assert len(list(dimse.send(node.peer, "SENDER", slices, 5.0))) == 24
    wait_for("the transfer is recorded", lambda: "DICOM Instances Transferred" in node.kinds())
    with running(UdpReceiver(port)) as syslog:
        wait_for("syslog has it all", lambda: len(syslog.received) >= len(read_lines(node.trail)))
    assert syslog.received == read_lines(node.trail)

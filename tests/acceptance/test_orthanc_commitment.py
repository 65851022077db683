"""Storage commitment by a real Orthanc, which reports on an association of its own."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode import courier, dimse
from dicomnode.database import open_database
from dicomnode.deliveries import DeliveryEvent
from dicomnode.dimse import Peer
from dicomnode.store import outbox
from tests.external import find_program
from tests.orthanc import Orthanc
from tests.outboxes import HOUR_S, SEG, SR, Outbox
from tests.phantom import PhantomOptions, write_series
from tests.served import ServedNode, take_port, wait_for


@pytest.fixture
def port() -> int:
    """Of the node: Orthanc has to know it."""
    return take_port()


@pytest.fixture
def orthanc(tmp_path: Path, port: int) -> Iterator[Orthanc]:
    find_program("Orthanc", "orthanc")
    server = start_orthanc(tmp_path, port)
    yield server
    server.stop()


def start_orthanc(folder: Path, port: int, **changes: object) -> Orthanc:
    return Orthanc(folder / "orthanc", DicomModalities={"node": ["PANCREAS", "127.0.0.1", port]}, **changes)


def forget(orthanc: Orthanc, sop_instance_uid: str) -> None:
    """Delete an instance, as somebody might between the C-STORE and the request for commitment."""
    (found,) = (
        one for one in orthanc.ask("/instances?expand") if one["MainDicomTags"]["SOPInstanceUID"] == sop_instance_uid
    )
    url = f"http://127.0.0.1:{orthanc._http_port}/instances/{found['ID']}"
    with urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10):
        pass


@pytest.fixture
def bench(tmp_path: Path, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    monkeypatch.setattr(courier, "_LINGER_S", 0.1)
    made = Outbox(tmp_path, orthanc.dicom_port, title="ORTHANC")
    yield made
    made.database.close()


def test_case_26_orthanc_confirms_what_it_holds(orthanc: Orthanc, bench: Outbox, port: int) -> None:
    with bench.listening(port):
        bench.courier.step()
        wait_for("Orthanc's report", lambda: bench.states() == ["confirmed", "confirmed"], 30)
    assert orthanc.series().keys() == {"SEG", "SR"}
    assert bench.events(bench.ids()[0]) == ["claim", "accept", "ask", "confirm"]


def test_case_26_what_orthanc_lost_is_sent_again_and_confirmed(orthanc: Orthanc, bench: Outbox, port: int) -> None:
    bench.courier._deliver()
    assert bench.states() == ["sent", "sent"]
    forget(orthanc, SEG)
    with bench.listening(port):
        bench.courier.step()
        wait_for("Orthanc's report", lambda: bench.states() == ["pending", "confirmed"], 30)
        assert bench.reasons()[0] == "not committed: 0x0112 no such object instance"
        bench.advance(HOUR_S)
        bench.courier.step()
        wait_for("Orthanc's other report", lambda: bench.states() == ["confirmed", "confirmed"], 30)
    assert {one["MainDicomTags"]["SOPInstanceUID"] for one in orthanc.ask("/instances?expand")} == {SEG, SR}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_case_25_orthanc_is_started_only_after_the_run(tmp_path: Path) -> None:
    find_program("Orthanc", "orthanc")
    dicom_port = take_port()
    node = ServedNode(tmp_path, ("ORTHANC", dicom_port))
    node.config.write_text(node.config.read_text(encoding="utf-8") + "storage_commitment = true\n", encoding="utf-8")
    (tmp_path / "phantom").mkdir()
    paths = write_series(tmp_path / "phantom", PhantomOptions(shape=(24, 40, 50), spacing_mm=(4.0, 4.0, 4.0)))
    node.start()
    outcomes = [outcome for _, outcome in dimse.send(Peer("PANCREAS", "127.0.0.1", node.port), "SENDER", paths, 60)]
    assert {outcome.event for outcome in outcomes} == {DeliveryEvent.ACCEPT}
    database = open_database(f"sqlite:///{tmp_path}/node.db")

    def deliveries() -> list[outbox.ListedDelivery]:
        with database.read() as connection:
            return outbox.list_deliveries(connection, 10)

    wait_for("results that nobody takes", lambda: [one.attempts > 1 for one in deliveries()] == [True, True], 240)
    node.kill()  # and the node itself dies meanwhile
    node.start()
    orthanc = start_orthanc(tmp_path, node.port, DicomPort=dicom_port)
    try:
        wait_for("SEG and SR confirmed", lambda: {one.state for one in deliveries()} == {"confirmed"}, 240)
        assert {kind: len(one["Instances"]) for kind, one in orthanc.series().items()} == {"SEG": 1, "SR": 1}
        assert node.stop() == 0, node.log()
    finally:
        orthanc.stop()
        database.close()

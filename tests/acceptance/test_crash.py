"""`kill -9` at arbitrary moments: what was acknowledged is there, and every result arrives."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, StoragePresentationContexts, evt
from sqlalchemy import select

from dicomnode import dimse
from dicomnode.database import open_database
from dicomnode.deliveries import DeliveryEvent
from dicomnode.dimse import Peer
from dicomnode.tables import instances
from tests.phantom import PhantomOptions, write_series
from tests.served import ServedNode, wait_for

SECONDS_TO_LIVE = (0.3, 6.0)  # of a node that has the series: it assembles, measures, delivers


class Collector:
    """A storage SCP that keeps what it got, by SOP Instance UID."""

    def __init__(self) -> None:
        self.received: dict[str, list[bytes]] = {}
        entity = AE("PACS")
        entity.supported_contexts = StoragePresentationContexts
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store)]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.received.setdefault(uid, []).append(event.request.DataSet.getvalue())
        return 0x0000


@pytest.fixture
def pacs() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def send(node: ServedNode, paths: list[Path], acknowledged: set[Path], kill_after: int | None = None) -> None:
    """Send what is not acknowledged yet; kill the node right after so many acknowledgements of this association."""
    left = [path for path in paths if path not in acknowledged]
    for count, (path, outcome) in enumerate(dimse.send(Peer("PANCREAS", "127.0.0.1", node.port), "SENDER", left, 5.0)):
        if outcome.event is DeliveryEvent.ACCEPT:
            acknowledged.add(path)
        if count + 1 == kill_after:
            node.kill()


def data_set(blob: bytes) -> bytes:
    return blob[144 + int.from_bytes(blob[140:144], "little") :]


@pytest.mark.slow
def test_case_01_and_28_nothing_acknowledged_is_lost_and_every_result_arrives(tmp_path: Path, pacs: Collector) -> None:
    moments = random.Random(1)
    (tmp_path / "phantom").mkdir()
    options = PhantomOptions(shape=(24, 40, 50), spacing_mm=(4.0, 4.0, 4.0))
    paths = write_series(tmp_path / "phantom", options)
    node = ServedNode(tmp_path, ("PACS", pacs.port))
    acknowledged: set[Path] = set()
    node.start()
    send(node, paths[:16], acknowledged, kill_after=7)
    node.start()
    send(node, paths[:16], acknowledged)
    time.sleep(moments.uniform(*SECONDS_TO_LIVE))
    node.kill()
    node.start()
    send(node, paths, acknowledged)
    started = node.log().count(": started, attempt")
    wait_for("a job is started", lambda: node.log().count(": started, attempt") > started)
    node.kill()
    assert acknowledged == {*paths}
    node.start()

    def is_over() -> bool:
        jobs = node.jobs()
        ended = all(job["state"] in ("done", "skipped") for job in jobs)
        sent = all(job["deliveries"] == {"sent": 2} for job in jobs if job["state"] == "done")
        return bool(jobs) and ended and sent and max(job["instance_count"] for job in jobs) == len(paths)

    wait_for("all jobs done and delivered", is_over, 150)
    assert node.stop() == 0, node.log()
    assert_all_stored(node, paths)
    jobs = Counter((job["series_instance_uid"], job["revision"]) for job in node.jobs())
    assert set(jobs.values()) == {1}
    done = [job for job in node.jobs() if job["state"] == "done"]
    assert len(pacs.received) == 2 * len(done)
    # A kill between the archive's answer and its note may send an instance again, but then the very same one.
    assert all(len(set(copies)) == 1 for copies in pacs.received.values())


def assert_all_stored(node: ServedNode, paths: list[Path]) -> None:
    """Every instance is indexed once, and its data set is byte-equal to what was sent."""
    database = open_database(f"sqlite:///{node.folder}/node.db")
    with database.read() as connection:
        rows = connection.execute(select(instances.c.sop_instance_uid, instances.c.path)).all()
    database.close()
    assert len(rows) == len(paths)
    stored = {row.sop_instance_uid: (node.folder / "archive" / row.path).read_bytes() for row in rows}
    for path in paths:
        blob = path.read_bytes()
        assert data_set(stored[pydicom.dcmread(path).SOPInstanceUID]) == data_set(blob)

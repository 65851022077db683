"""The four actors over one folder, stepped by hand: a real SQLite file, real associations, a clock of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SegmentationStorage,
    Verification,
)

from dicomnode import dimse
from dicomnode.archive import Archive
from dicomnode.arrivals import CompletenessRule
from dicomnode.assembler import Assembler
from dicomnode.courier import Courier, Route
from dicomnode.database import Database, open_database
from dicomnode.deliveries import Patience
from dicomnode.dimse import Line, Peer
from dicomnode.jobs import Job, RetryPolicy
from dicomnode.lifecycle import Backoff
from dicomnode.receiver import Receiver
from dicomnode.sections import ListenerSettings
from dicomnode.selection import Selection
from dicomnode.store import queue
from dicomnode.tables import deliveries, results
from dicomnode.worker import Worker, Workplace
from tests.fakes import threshold_model

SMALL = {"shape": (24, 40, 50), "spacing_mm": (4.0, 4.0, 4.0)}
RESULTS = (SegmentationStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)


class Clock:
    """A time that only the test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Pacs:
    """A storage SCP that answers with the given statuses in turn, then with success."""

    def __init__(self, classes: tuple[str, ...] = RESULTS, statuses: tuple[int, ...] = ()) -> None:
        self.received: list[pydicom.Dataset] = []
        self._statuses = list(statuses)
        self._entity = AE("PACS")
        for sop_class in (*classes, Verification):
            self._entity.add_supported_context(sop_class)

    def start(self, port: int = 0) -> int:
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store)]
        self._server = self._entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        status = self._statuses.pop(0) if self._statuses else 0x0000
        if status == 0 or status >> 12 == 0xB:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self.received.append(dataset)
        return status


class Bench:
    """The four actors over one folder, stepped by hand."""

    def __init__(self, folder: Path, port: int, url: str = "") -> None:
        """url: of the database; empty: SQLite in the folder."""
        self.clock = Clock()
        self.archive = Archive(folder / "archive", 0)
        self.database: Database = open_database(url or f"sqlite:///{folder}/node.db")
        self.receiver = Receiver(self.database, self.archive, self.clock)
        self.assembler = Assembler(self.database, self.archive, CompletenessRule(30), Selection(10), self.clock)
        retry = RetryPolicy(2, Backoff(60, 60))
        place = Workplace(threshold_model(), "cpu", 1, 60.0, retry, ("pacs",))
        self.worker = Worker(self.database, self.archive, place, self.clock)
        route = Route("pacs", Line(Peer("PACS", "127.0.0.1", port), "PANCREAS", 2.0), Patience(Backoff(10, 15), 1e6))
        self.courier = Courier(self.database, self.archive, route, self.clock, draw=lambda: 1.0)

    @contextmanager
    def listening(self) -> Iterator[Peer]:
        server = dimse.listen(ListenerSettings(port=0), [self.receiver.service(("1.2.840.10008.1.2.1",))])
        try:
            yield Peer("PANCREAS", "127.0.0.1", int(server.server_address[1]))
        finally:
            dimse.close(server, 2.0)

    def take_in(self, paths: list[Path]) -> None:
        """Store as the listener does, without the network."""
        for path in paths:
            self.receiver.store(path.read_bytes(), "SENDER")
        self.clock.advance(31)
        self.assembler.step()

    def job(self, job_id: int = 1) -> Job:
        with self.database.read() as connection:
            return queue.job(connection, job_id)

    def deliveries(self) -> list[tuple[str, int, str]]:
        with self.database.read() as connection:
            columns = (deliveries.c.state, deliveries.c.attempts, deliveries.c.reason)
            statement = deliveries.select().with_only_columns(*columns).order_by(deliveries.c.id)
            return [tuple(row) for row in connection.execute(statement)]

    def result_files(self) -> dict[str, bytes]:
        with self.database.read() as connection:
            rows = connection.execute(results.select()).all()
        return {row.sop_instance_uid: self.archive.path(row.path).read_bytes() for row in rows}

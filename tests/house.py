"""A node's archive, database, receiver and housekeeper over one folder; jobs and deliveries are moved by hand."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom

from dicomnode.archive import RESULTS, Archive, archive_path
from dicomnode.database import open_database
from dicomnode.deliveries import DeliveryEvent, Outcome
from dicomnode.housekeeper import Household, Housekeeper
from dicomnode.receiver import Receiver
from dicomnode.retention import RetentionRule
from dicomnode.store import outbox, queue, receiving, watch
from tests.phantom import PhantomOptions, write_series

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RESULT = b"a result"
ACCEPT = Outcome(DeliveryEvent.ACCEPT, "")


class House:
    """See above. now: what all clocks say."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        self.now = START
        self.archive = Archive(folder / "archive", 0)
        self.database = open_database(url or f"sqlite:///{folder}/node.db")
        self.receiver = Receiver(self.database, self.archive, lambda: self.now)
        self.slices = write_series(folder, PhantomOptions(shape=(3, 4, 4)))
        self.uid = str(pydicom.dcmread(self.slices[0]).SeriesInstanceUID)

    def receive(self, *slices: int) -> None:
        for number in slices:
            self.receiver.store(self.slices[number].read_bytes(), "SENDER")

    def add_job(self) -> int:
        with self.database.begin() as connection:
            (arrival,) = receiving.arrivals(connection)
            return queue.add_job(connection, arrival, "", self.now)

    def finish(self, *destinations: str) -> None:
        digest = hashlib.sha256(RESULT).hexdigest()
        path = archive_path(RESULTS, self.uid, "2.25.1", digest)
        self.archive.keep(path, RESULT)
        measured = outbox.Measured(True, 80.0, 0.9, (), "m", "1", "0" * 64)
        made = outbox.StoredResult("1.2.840", "2.25.1", "2.25.2", path, digest)
        with self.database.begin() as connection:
            held = queue.claim(connection, "A", self.now, 60)
            assert held
            outbox.finish(connection, held, outbox.Finished(measured, [], [made], destinations), self.now)

    def settle(self, destination: str, *outcomes: Outcome) -> None:
        with self.database.begin() as connection:
            (delivery,) = outbox.claim(connection, destination, self.now, 60)
            for outcome in outcomes:
                outbox.settle(connection, delivery.id, outcome, self.now)

    def keep(self, days: float = 0, promising: tuple[str, ...] = (), **rule: Any) -> int:
        """A step of a fresh housekeeper after so many days; without a rule: thirty days for everything."""
        self.now += timedelta(days=days)
        household = Household(RetentionRule(**(rule or {"received_days": 30, "results_days": 30})), promising)
        return Housekeeper(self.database, self.archive, household, lambda: self.now).step()

    def files(self, area: str) -> int:
        return len([path for path in (self.folder / "archive" / area).rglob("*") if path.is_file()])

    def alarms(self) -> list[watch.Alarm]:
        with self.database.read() as connection:
            return watch.list_alarms(connection, 9)

    def deliver(self) -> None:
        """A whole series, measured and delivered."""
        self.receive(0, 1, 2)
        self.add_job()
        self.finish("pacs")
        self.settle("pacs", ACCEPT)

    def path(self, area: str) -> Path:
        """Some file of the area."""
        return next(path for path in (self.folder / "archive" / area).rglob("*.dcm"))

"""A node without its processes: the phantom is received, measured by a threshold, and looked at in the web."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from dicomnode.archive import Archive
from dicomnode.auditor import Auditor
from dicomnode.database import open_database
from dicomnode.jobs import RetryPolicy
from dicomnode.lifecycle import Backoff
from dicomnode.receiver import Receiver
from dicomnode.settings import Settings
from dicomnode.store import queue, receiving
from dicomnode.web.app import create_app
from dicomnode.worker import Worker, Workplace
from models.bundle import Model
from tests.fakes import threshold_model
from tests.phantom import PhantomOptions, write_series

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RETRY = RetryPolicy(3, Backoff(1, 2))
SHAPE, SPACING_MM = (20, 40, 50), (5.0, 4.0, 4.0)


def fast_model(threshold_hu: float | None = None, **changes: Any) -> Model:
    """A threshold on the grid of the series itself."""
    return threshold_model(threshold_hu, **{"spacing_mm": SPACING_MM, "patch": SHAPE, **changes})


class Clinic:
    """Everything over one folder; `now` is what all clocks say."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.now = NOW
        self.settings = Settings(archive={"path": folder / "archive", "reserve_gb": 0}, **settings)
        self.database = open_database(self.settings.database_url)
        self.archive = Archive(folder / "archive", 0)
        self._receiver = Receiver(self.database, self.archive, lambda: self.now)

    def receive(self, **options: Any) -> int:
        """A series of the phantom arrives, `PhantomOptions` say how it was scanned; returns its queued job."""
        options = {"shape": SHAPE, "spacing_mm": SPACING_MM, **options}
        with tempfile.TemporaryDirectory() as folder:
            return self.receive_files(write_series(Path(folder), PhantomOptions(**options)))

    def receive_files(self, files: list[Path]) -> int:
        """Files of one series arrive; returns its queued job."""
        for path in files:
            self._receiver.store(path.read_bytes(), "SCANNER")
        with self.database.begin() as connection:
            (arrival,) = receiving.arrivals(connection)
            return queue.add_job(connection, arrival, "", self.now)

    def measure(self, model: Model | None = None, attributes: Mapping[str, Any] | None = None, **options: Any) -> int:
        """A series arrives and is measured; attributes: of its headers."""
        options = {"attributes": attributes or {}, "seed": f"{attributes} {options}", **options}
        job_id = self.receive(**options)
        self.work(model or fast_model())
        return job_id

    def work(self, model: Model) -> None:
        """Measure what is queued."""
        place = Workplace(model, "cpu", 1, 60, RETRY, ())
        assert Worker(self.database, self.archive, place, lambda: self.now).step()

    def app(self) -> FastAPI:
        """The web interface."""
        auditor = Auditor(self.settings, self.database, lambda: self.now)
        return create_app(self.settings, self.database, self.archive, auditor, lambda: self.now)

"""How long it takes to turn an arrival into a queued job, committed to disk, beside a short and beside a long queue."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.database import Database, open_database
from dicomnode.store import queue, receiving

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LENGTHS = (10, 10_000)
BOUND_MS = 10.0


def receive(database: Database, first: int, count: int) -> None:
    """That many series of one instance each."""
    with database.begin() as connection:
        for number in range(first, first + count):
            head = (f"1.2.{number}", "1.2", "1.2", f"1.1.{number}", "1.0", Patient("P", ""), "CT", "", "", "20200101")
            receiving.remember(connection, StoredInstance(*head, f"{number}.dcm", 1, "a" * 64, "A", NOW))


def enqueue(database: Database) -> list[float]:
    """Make jobs of all that waits, each in a transaction of its own; the seconds of each."""
    with database.read() as connection:
        waiting = receiving.arrivals(connection)
    took = []
    for arrival in waiting:
        started = time.perf_counter()
        with database.begin() as connection:
            queue.add_job(connection, arrival, "", NOW)
        took.append(time.perf_counter() - started)
    return took


def sync(folder: Path) -> float:
    """The median of what one small fsync takes there, in seconds: what no commit can be faster than."""
    took = []
    with (folder / "probe").open("wb") as file:
        for _ in range(200):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - started)
    return statistics.median(took)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--jobs", type=int, default=500, help="how many are added and timed")
    count = arguments.parse_args().jobs
    table = Table("queued before", "median, ms", "95th percentile, ms", "bound, ms")
    with tempfile.TemporaryDirectory() as temporary:
        database = open_database(f"sqlite:///{temporary}/node.db")
        queued = 0
        for length in LENGTHS:
            receive(database, queued, length - queued)
            enqueue(database)
            receive(database, length, count)
            took = sorted(enqueue(database))
            queued = length + count
            middle, high = statistics.median(took) * 1e3, took[int(0.95 * len(took))] * 1e3
            table.add_row(f"{length:,}", f"{middle:.2f}", f"{high:.2f}", f"{BOUND_MS:g}")
        database.close()
        Console(width=120).print(table)
        print(f"one fsync of 4 kB there: {sync(Path(temporary)) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()

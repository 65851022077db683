"""Case 29: several processes at one SQLite file, a lock that somebody holds, and a long queue."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pydicom
import pytest
from sqlalchemy import Connection, event, select

from dicomnode.archive import Archive
from dicomnode.arrivals import Arrival
from dicomnode.database import Database, open_database
from dicomnode.receiver import Receiver
from dicomnode.store import queue, receiving
from dicomnode.tables import instances, job_events, jobs, series
from tests.phantom import PhantomOptions, write_series

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
QUEUED = 10_000

_CLAIM_ALL = """
import sys
from datetime import UTC, datetime
from dicomnode.database import open_database
from dicomnode.store import queue

database, now = open_database(sys.argv[1]), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
sys.stdin.readline()
while True:
    with database.begin() as connection:
        held = queue.claim(connection, sys.argv[2], now, 3600.0)
    if held is None:
        break
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/node.db")
    yield opened
    opened.close()


def fill(connection: Connection, count: int) -> None:
    """That many series of one instance, each with a job that waits."""
    numbers = range(1, count + 1)
    of_series = {"study_instance_uid": "1.0", "patient_id": "P", "issuer_of_patient_id": "", "acquired_at": ""}
    of_instance = {
        "sop_class_uid": "1.2", "transfer_syntax_uid": "1.2", "modality": "CT", "image_type": "", "size_bytes": 1,
        "image_orientation": "", "sha256": "a" * 64, "calling_ae": "A", "received_at": NOW,
    }  # fmt: skip
    of_job = {
        "revision": 1, "state": "queued", "reason": "", "attempts": 0, "instance_count": 1,
        "created_at": NOW, "updated_at": NOW, "not_before": NOW,
    }  # fmt: skip
    uids = [{"series_instance_uid": f"1.1.{number}"} for number in numbers]
    last = [{"covered_until": number, "waiting": False} for number in numbers]
    connection.execute(series.insert(), [{**of_series, **uid, **to} for uid, to in zip(uids, last, strict=True)])
    rows = [
        {**of_instance, **uid, "id": n, "sop_instance_uid": f"1.2.{n}", "path": f"received/{n}.dcm"}
        for n, uid in zip(numbers, uids, strict=True)
    ]
    connection.execute(instances.insert(), rows)
    connection.execute(
        jobs.insert(), [{**of_job, **u, "last_instance_id": n} for n, u in zip(numbers, uids, strict=True)]
    )


def test_case_29_two_processes_never_run_the_same_job(either_url: str, either_database: Database) -> None:
    with either_database.begin() as connection:
        fill(connection, 60)
    command = [sys.executable, "-c", _CLAIM_ALL, either_url]
    workers = [subprocess.Popen([*command, holder], cwd=ROOT, stdin=subprocess.PIPE) for holder in "AB"]
    for one in workers:
        assert one.stdin
        one.stdin.write(b"\n")
        one.stdin.close()
    assert [one.wait(120) for one in workers] == [0, 0]
    with either_database.read() as connection:
        claims = Counter(connection.scalars(select(job_events.c.job_id).where(job_events.c.event == "claim")))
    assert (len(claims), set(claims.values())) == (60, {1})


def test_case_29_a_lock_that_is_held_for_a_while_costs_no_acknowledgement(tmp_path: Path, database: Database) -> None:
    instance = pydicom.dcmread(write_series(tmp_path, PhantomOptions(shape=(1, 8, 8)))[0])
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    receiver = Receiver(database, Archive(tmp_path / "archive", 0), lambda: NOW)
    acknowledged = Event()

    def receive() -> None:
        receiver.store(buffer.getvalue(), "SENDER")
        acknowledged.set()

    thread = Thread(target=receive)
    with database.begin() as connection:
        connection.execute(jobs.delete())
        thread.start()
        assert not acknowledged.wait(2)
    thread.join(60)
    assert acknowledged.is_set()
    with database.read() as connection:
        assert receiving.find(connection, str(instance.SOPInstanceUID))


def test_case_29_enqueueing_looks_at_no_other_job(database: Database) -> None:
    """However long the queue: each statement finds its rows by an index, none reads a table from end to end."""
    with database.begin() as connection:
        fill(connection, QUEUED)
        arrival = Arrival("1.1.7", "1.0", 7, NOW, 1)
        said = statements_of(connection, lambda: queue.add_job(connection, arrival, "", NOW))
        plans = [plan for statement in said for plan in explain(connection, *statement)]
    assert any("jobs" in plan for plan in plans)
    assert [plan for plan in plans if plan.startswith("SCAN")] == []


def statements_of(connection: Connection, act: Any) -> list[tuple[str, Any]]:
    said: list[tuple[str, Any]] = []

    def hear(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        said.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", hear)
    act()
    event.remove(connection, "before_cursor_execute", hear)
    return said


def explain(connection: Connection, statement: str, parameters: Any) -> list[str]:
    return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]

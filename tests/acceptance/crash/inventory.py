"""What has to be right in the end, counted: nothing lost, nothing twice, nothing left over."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy import Connection, exists, select

from dicomnode.database import open_database
from dicomnode.tables import deliveries, instances, job_events, jobs, results, series
from tests.acceptance.crash.peers import Collector, Modality
from tests.served import ServedNode, wait_for

_ENDED = ("done", "skipped", "superseded")
_DELIVERED = ("sent", "confirmed")
_SETTLED = (*_DELIVERED, "cancelled")  # of a revision that a later one superseded before its results went out
_OLD_S = 30 * 86400


@dataclass
class Tally:
    """What was tried."""

    starts: int = 0
    series: int = 0
    series_sent_again: int = 0
    instances: int = 0
    requests: int = 0
    acknowledgements: int = 0
    jobs: int = 0
    jobs_measured: int = 0
    jobs_interrupted: int = 0
    results_delivered: int = 0
    results_sent_again: int = 0


@dataclass
class Faults:
    """What must not be: each is a count, and each has to be zero."""

    unacknowledged: int = 0
    refused: int = 0
    lost: int = 0
    altered: int = 0
    orphan_files: int = 0
    temporary_files: int = 0
    series_not_measured: int = 0
    measured_twice: int = 0
    stuck_jobs: int = 0
    stuck_deliveries: int = 0
    results_lost: int = 0
    results_duplicated: int = 0
    senders_stuck: int = 0
    unclean_stops: int = 0
    processes_left: int = 0

    @property
    def any(self) -> bool:
        return any(asdict(self).values())


def is_over(node: ServedNode) -> bool:
    """Whether every job is over and all of its results are delivered."""
    with _open(node) as connection:
        waits = connection.scalar(select(exists().where(series.c.waiting)))
        runs = connection.scalar(select(exists().where(jobs.c.state.not_in(_ENDED))))
        sends = connection.scalar(select(exists().where(deliveries.c.state.not_in(_SETTLED))))
    return not (waits or runs or sends)


@contextmanager
def _open(node: ServedNode) -> Iterator[Connection]:
    database = open_database(f"sqlite:///{node.folder}/node.db")
    with database.read() as connection:
        yield connection
    database.close()


def let_leftovers_age(node: ServedNode) -> None:
    """The node sweeps results that no row names once no worker can be at them any more; here they get that old."""
    long_ago = time.time() - _OLD_S
    for file in (node.folder / "archive" / "results").rglob("*.dcm"):
        os.utime(file, (long_ago, long_ago))


def data_set(blob: bytes) -> bytes:
    """Without preamble and file meta information, which hold the sender's title."""
    return blob[144 + int.from_bytes(blob[140:144], "little") :]


def take_inventory(
    tally: Tally,
    faults: Faults,
    node: ServedNode,
    sides: tuple[Sequence[list[Path]], Sequence[Modality], Collector],
) -> None:
    """Compare what modalities and archive know with what the node, which is stopped, has on disk."""
    sent, modalities, collector = sides
    with _open(node) as connection:
        _count_instances(tally, faults, connection, (node.folder / "archive", sent, modalities))
        _count_jobs(tally, faults, connection, sent)
        _count_results(tally, faults, connection, (node.folder / "archive", collector))
        _count_files(faults, connection, node.folder / "archive")
    try:
        wait_for("no process is left", lambda: not node.processes(), 30)
    except AssertionError:
        faults.processes_left = len(node.processes())


def _count_instances(
    tally: Tally,
    faults: Faults,
    connection: Connection,
    sides: tuple[Path, Sequence[list[Path]], Sequence[Modality]],
) -> None:
    archive, handed_out, modalities = sides
    acknowledged = set[Path]().union(*(modality.acknowledged for modality in modalities))
    stored = dict(connection.execute(select(instances.c.sop_instance_uid, instances.c.path)).tuples().all())
    for path in acknowledged:
        uid = str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        kept = archive / stored.get(uid, "none")
        if not kept.is_file():
            faults.lost += 1
        elif data_set(kept.read_bytes()) != data_set(path.read_bytes()):
            faults.altered += 1
    tally.series, tally.instances = len(handed_out), sum(map(len, handed_out))
    tally.requests = sum(modality.sent for modality in modalities)
    tally.acknowledgements = sum(modality.acknowledgements for modality in modalities)
    faults.refused = sum(len(modality.refused) for modality in modalities)
    faults.unacknowledged = tally.instances - len(acknowledged)


def _count_jobs(tally: Tally, faults: Faults, connection: Connection, sent: Sequence[list[Path]]) -> None:
    rows = connection.execute(select(jobs).order_by(jobs.c.id)).all()
    events = Counter(connection.execute(select(job_events.c.job_id, job_events.c.event)).tuples().all())
    content = Counter((row.series_instance_uid, row.last_instance_id) for row in rows)
    finished = Counter({row.id: events[row.id, "finish"] for row in rows})
    faults.measured_twice = sum(count - 1 for count in (*content.values(), *finished.values()) if count > 1)
    faults.stuck_jobs = sum(row.state not in _ENDED for row in rows)
    latest = {row.series_instance_uid: row for row in rows}
    whole = sum(row.state == "done" and row.instance_count == len(sent[0]) for row in latest.values())
    faults.series_not_measured = len(sent) - whole
    tally.jobs, tally.jobs_measured = len(rows), sum(events[row.id, "finish"] > 0 for row in rows)
    tally.jobs_interrupted = sum(events[row.id, "expire"] for row in rows)


def _count_results(tally: Tally, faults: Faults, connection: Connection, sides: tuple[Path, Collector]) -> None:
    archive, collector = sides
    rows: dict[str, Any] = {row.sop_instance_uid: row for row in connection.execute(select(results))}
    states = list(connection.scalars(select(deliveries.c.state)))
    went_out = select(results.c.sop_instance_uid).join(deliveries).where(deliveries.c.state.in_(_DELIVERED))
    delivered = set(connection.scalars(went_out))
    faults.stuck_deliveries = sum(state not in _SETTLED for state in states)
    done = connection.scalars(select(jobs.c.id).where(jobs.c.state == "done")).all()
    per_job = Counter(row.job_id for row in rows.values())
    for uid, row in rows.items():
        kept = data_set((archive / row.path).read_bytes()) if (archive / row.path).is_file() else b""
        copies = collector.received.get(uid, [])
        faults.results_lost += uid in delivered and hashlib.sha256(kept).hexdigest() not in copies
        # A kill between the archive's answer and its note sends an instance again, but then the very same one.
        faults.results_duplicated += len(set(copies)) > 1
        tally.results_sent_again += max(0, len(copies) - 1)
    faults.results_lost += sum(per_job[job_id] < 2 for job_id in done)
    faults.results_lost += sum(row.job_id in done and uid not in delivered for uid, row in rows.items())
    faults.results_duplicated += sum(per_job[job_id] > 2 for job_id in done)
    faults.results_duplicated += len(collector.received.keys() - rows.keys())
    tally.results_delivered = len(collector.received)


def _count_files(faults: Faults, connection: Connection, archive: Path) -> None:
    named = {*connection.scalars(select(instances.c.path)), *connection.scalars(select(results.c.path))}
    there = {
        file.relative_to(archive).as_posix()
        for area in ("received", "results")
        for file in (archive / area).rglob("*")
        if file.is_file()
    }
    faults.orphan_files = len(there - named)
    faults.temporary_files = sum(file.is_file() for file in (archive / "incoming").rglob("*"))

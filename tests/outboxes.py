"""The outbox of a node, and what empties it, without the actors before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.sop_class import CTImageStorage, SegmentationStorage

from dicomnode import dimse
from dicomnode.archive import Archive
from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.courier import Courier, Route
from dicomnode.database import open_database
from dicomnode.deliveries import Patience
from dicomnode.dimse import Line, Peer
from dicomnode.lifecycle import Backoff
from dicomnode.notary import Notary
from dicomnode.sections import ListenerSettings
from dicomnode.store import outbox, queue, receiving, watch
from tests.archives import RESULTS

HOUR_S = 3600.0
PATIENCE = Patience(Backoff(10, 900), give_up_s=96 * HOUR_S, report_s=HOUR_S, most_sendings=3)
SEG, SR = "2.25.1", "2.25.2"


class Outbox:
    """A node's outbox with a SEG and a SR, for one archive and another; courier, notary and a clock to turn."""

    def __init__(
        self, folder: Path, port: int, patience: Patience = PATIENCE, *, title: str = "ARCHIVE", url: str = ""
    ) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.archive = Archive(folder / "archive", 0)
        self.url = url or f"sqlite:///{folder}/node.db"
        self.database = open_database(self.url)
        self.port, self.patience, self.title = port, patience, title
        self.denials: list[dimse.Denial] = []
        self._finish_a_job(folder)
        self.start()

    def start(self) -> None:
        """As after a restart: nothing is remembered but what the database holds."""
        self.courier, self.notary = self.make_courier("archive", self.port), self.make_notary()

    def make_courier(self, name: str, port: int) -> Courier:
        line = Line(Peer(self.title, "127.0.0.1", port), "PANCREAS", 3.0)
        route = Route(name, line, self.patience, line)
        return Courier(self.database, self.archive, route, lambda: self.now, draw=lambda: 1.0)

    def make_notary(self) -> Notary:
        return Notary(self.database, {"archive": self.title}, self.patience, lambda: self.now, deny=self.denials.append)

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[int]:
        server = dimse.listen(ListenerSettings(port=port), [self.notary.service()])
        try:
            yield int(server.server_address[1])
        finally:
            dimse.close(server, 2.0)

    def states(self, destination: str = "archive") -> list[str]:
        with self.database.read() as connection:
            listed = outbox.list_deliveries(connection, 10, destination=destination)
        return [one.state for one in reversed(listed)]

    def reasons(self) -> list[str]:
        with self.database.read() as connection:
            return [one.reason for one in reversed(outbox.list_deliveries(connection, 10, destination="archive"))]

    def alarms(self) -> list[tuple[str, str]]:
        with self.database.read() as connection:
            return [(alarm.kind, alarm.subject) for alarm in watch.list_alarms(connection, 10)]

    def events(self, delivery_id: int) -> list[str]:
        with self.database.read() as connection:
            return [entry.event for entry in queue.timeline(connection, 1) if entry.delivery_id == delivery_id]

    def ids(self) -> list[int]:
        """Of the SEG and of the SR for the archive."""
        with self.database.read() as connection:
            return [one.id for one in reversed(outbox.list_deliveries(connection, 10, destination="archive"))]

    def retry(self, delivery_id: int) -> None:
        with self.database.begin() as connection:
            outbox.requeue(connection, delivery_id, "by an operator", self.now)

    def _finish_a_job(self, folder: Path) -> None:
        written = []
        for sop_class, uid in zip(RESULTS, (SEG, SR), strict=True):
            path = self.archive.path(f"{uid}.dcm")
            path.parent.mkdir(exist_ok=True)
            write_result(path, sop_class, uid)
            written.append(outbox.StoredResult(sop_class, uid, "1.9", f"{uid}.dcm", "a" * 64))
        measured = outbox.Measured(True, 80.0, 0.9, (), "m", "1", "0" * 64)
        head = ("1.2.3", CTImageStorage, ExplicitVRLittleEndian, "1.2", "1.1", Patient("P", ""), "CT", "AXIAL", "")
        with self.database.begin() as connection:
            tail = ("20200102", "received/1.dcm", 10, "b" * 64, "SENDER", self.now)
            receiving.remember(connection, StoredInstance(*head, *tail))
            for arrival in receiving.arrivals(connection):
                queue.add_job(connection, arrival, "", self.now)
            held = queue.claim(connection, "A", self.now, 60.0)
            assert held is not None
            outbox.finish(connection, held, outbox.Finished(measured, [], written, ["archive", "other"]), self.now)


def write_result(path: Path, sop_class: str, uid: str) -> None:
    result = Dataset()
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.SOPClassUID, result.SOPInstanceUID = sop_class, uid
    result.PatientID, result.StudyInstanceUID, result.SeriesInstanceUID = "PHANTOM-1", "1.1", f"1.1.{uid}"
    result.Modality = "SEG" if sop_class == SegmentationStorage else "SR"
    result.file_meta.MediaStorageSOPClassUID, result.file_meta.MediaStorageSOPInstanceUID = sop_class, uid
    result.save_as(path, enforce_file_format=True)

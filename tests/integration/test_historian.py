"""What archives hold of a patient's earlier volumes comes into the history, once, and only of the product's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import update

from dicomnode.arrivals import Labels, Patient, StoredInstance
from dicomnode.database import Database, open_database
from dicomnode.errors import Misconfigured, Unavailable
from dicomnode.historian import Historian
from dicomnode.history import Standing, VolumePoint
from dicomnode.node import Actor, Node
from dicomnode.pulling import FoundSeries, FoundStudy, Keep, Query
from dicomnode.settings import Settings
from dicomnode.store import history, receiving
from dicomnode.tables import prior_reports
from pipeline.priors import Priors, Report
from pipeline.provenance import Revision
from pipeline.seg import to_seg
from pipeline.sr import to_sr
from tests.fakes import CARD
from tests.patients import add_measurement
from tests.results import AT, describe, mark, scan_phantom

US = Patient("PHANTOM-1", "")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def report(folder: Path, revision: int = 1, priors: Priors | None = None, **attributes: str) -> Dataset:
    """A report of before, on a scan of its own where the attributes differ."""
    folder.mkdir(exist_ok=True)
    series = scan_phantom(folder, attributes=attributes)
    segmentation = mark(series)
    seg = to_seg(series, segmentation, CARD, AT)
    known = priors or Priors()
    return to_sr(series, describe(segmentation), CARD, AT, seg=seg, revision=Revision(revision), priors=known)


def refer(sr: Dataset) -> Report:
    return Report(sr.StudyInstanceUID, sr.SeriesInstanceUID, sr.SOPClassUID, sr.SOPInstanceUID)


class Shelf:
    """An archive of reports; whoever asks for a patient gets all there are."""

    def __init__(self, *reports: Dataset, extra: Sequence[bytes] = ()) -> None:
        self.blobs = [*map(encode, reports), *extra]
        self.asked: list[Query] = []
        self.is_away = False

    def find(self, query: Query) -> Iterator[FoundStudy]:
        self.asked.append(query)
        if self.is_away:
            raise Unavailable("no answer in time")
        series = [FoundSeries("1.2", f"1.2.{n}", "SR", "Pancreas 80.0 mL (AI report, unverified)", "1", 1)
                  for n in range(len(self.blobs))]  # fmt: skip
        dose = FoundSeries("1.2", "1.2.999", "SR", "Dose Report", "1", 1)
        yield FoundStudy("1.2", query.patient_id, "", "", "", (*series, dose))

    def fetch(self, series: FoundSeries, keep: Keep) -> object:
        return keep(self.blobs[int(series.series_instance_uid.split(".")[-1])])


def encode(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class Ledger:
    """A new node's database, to which a series of a patient came."""

    def __init__(self, url: str, patient: Patient = US) -> None:
        self.now = NOW
        self.database: Database = open_database(url)
        head = ("9.9", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "9.1", "9.0", patient, "CT")
        tail = ("AXIAL", "1\\0\\0\\0\\1\\0", "20260301", "received/9.dcm", 10, "b" * 64, "SENDER", NOW)
        with self.database.begin() as connection:
            receiving.remember(connection, StoredInstance(*head, *tail, labels=Labels()))

    def look(self, shelf: Shelf) -> bool:
        return Historian(self.database, shelf, "vna", lambda: self.now).step()

    def points(self, patient: Patient = US) -> list[VolumePoint]:
        with self.database.read() as connection:
            return history.points(connection, patient)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path}/node.db")
    yield made
    made.database.close()


def test_a_new_node_shows_what_was_reported_before(either_url: str, tmp_path: Path) -> None:
    ledger = Ledger(either_url)
    sr = report(tmp_path / "a")
    shelf = Shelf(sr)
    assert (ledger.look(shelf), ledger.look(shelf)) == (True, False)
    assert [(query.patient_id, query.modality) for query in shelf.asked] == [("PHANTOM-1", "SR")]
    (point,) = ledger.points()
    assert (point.source, point.job_id, point.standing) == ("vna", None, Standing.COUNTS)
    assert point.volume_ml == pytest.approx(float(sr.SeriesDescription.split()[1]), abs=0.05)
    assert (point.acquired_at, point.model_sha256) == ("20200102101112", CARD.sha256)
    ledger.database.close()


def test_case_22_reports_of_others_and_odd_ones_are_left(ledger: Ledger, tmp_path: Path) -> None:
    other = report(tmp_path / "a", PatientID="PHANTOM-10")
    issued = report(tmp_path / "b", IssuerOfPatientID="B")
    foreign = report(tmp_path / "c")
    foreign.Manufacturer = "Acme"
    shelf = Shelf(other, issued, foreign, extra=[b"no DICOM", b"\0" * 128 + b"DICM" + b"\xff" * 50])
    assert ledger.look(shelf)
    assert ledger.points() == []


def test_what_the_node_measured_itself_is_not_told_twice(ledger: Ledger, tmp_path: Path) -> None:
    sr = report(tmp_path / "a")
    ledger.look(Shelf(sr))
    assert [one.source for one in ledger.points()] == ["vna"]
    with ledger.database.begin() as connection:
        add_measurement(connection, US, "1", "20200102", 80.0)
        connection.execute(update(prior_reports).values(series_instance_uid="1.2.840.1"))
    assert [one.source for one in ledger.points()] == [""]


def test_of_editions_the_last_counts_and_of_revisions_too(ledger: Ledger, tmp_path: Path) -> None:
    first = report(tmp_path / "a")
    edition = report(tmp_path / "a", priors=Priors(edition=2, predecessor=refer(first)))
    later = report(tmp_path / "a", revision=2)
    ledger.look(Shelf(first, edition, later))
    points = sorted(ledger.points(), key=lambda point: point.revision)
    assert [(point.revision, point.superseded) for point in points] == [(1, True), (2, False)]


def test_an_archive_that_is_away_is_asked_again_later(ledger: Ledger, tmp_path: Path) -> None:
    shelf = Shelf(report(tmp_path / "a"))
    shelf.is_away = True
    assert (ledger.look(shelf), ledger.look(shelf)) == (True, False)
    shelf.is_away = False
    ledger.now += timedelta(minutes=2)
    assert ledger.look(shelf)
    assert len(ledger.points()) == 1


def test_case_04_a_patient_id_of_wildcards_asks_for_nobody(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/node.db", Patient("P*", ""))
    shelf = Shelf(report(tmp_path / "a"))
    assert (ledger.look(shelf), ledger.look(shelf), shelf.asked) == (True, False, [])
    ledger.database.close()


def test_case_22_without_a_patient_id_nobody_is_asked_for(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/node.db", Patient("", ""))
    assert not ledger.look(Shelf())
    ledger.database.close()


def test_the_node_looks_back_where_a_source_is_named(tmp_path: Path) -> None:
    archive = {"path": tmp_path / "archive", "reserve_gb": 0}
    sources = [{"name": "vna", "ae_title": "VNA", "host": "127.0.0.1", "port": 104}]
    plans = []
    for name in ("", "vna"):
        node = Node(Settings(archive=archive, sources=sources, priors={"source": name}), None)
        plans.append([actor for actor, _ in node._plan(frozenset({Actor.HISTORIAN})) if actor == "historian"])
        node._database.close()
    assert plans == [[], ["historian"]]
    node = Node(Settings(archive=archive, priors={"source": "pacs"}), None)
    with pytest.raises(Misconfigured, match="no source 'pacs'"):
        node._plan(frozenset({Actor.HISTORIAN}))
    node._database.close()

"""What becomes of a series that was measured when more of it comes: from C-STORE to the archive, and in the history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pydicom
import pytest

from dicomnode import worker
from dicomnode.arrivals import CompletenessRule, Patient
from dicomnode.dimse import Line
from dicomnode.history import VolumePoint
from dicomnode.jobs import JobState
from dicomnode.store import history, queue
from tests.bench import SMALL, Bench, Pacs
from tests.fakes import threshold_model
from tests.phantom import PhantomOptions, write_series
from tests.volumes import counting

PATIENT = Patient("PHANTOM-1", "")


class Ward:
    """The bench with its archive."""

    def __init__(self, folder: Path) -> None:
        self.pacs = Pacs()
        self.bench = Bench(folder, self.pacs.start())
        route = self.bench.courier._route
        self.bench.courier._route = replace(route, sender=replace(cast(Line, route.sender), timeout_s=120.0))
        coarse = threshold_model(spacing_mm=(4.0, 4.0, 4.0), patch=(16, 32, 32))
        self.bench.worker._workplace = replace(self.bench.worker._workplace, model=coarse)

    def process(self, paths: list[Path]) -> None:
        self.bench.take_in(paths)
        while self.bench.worker.step():
            pass

    def deliver(self) -> dict[str, pydicom.Dataset]:
        """What the archive got since the last time, by modality."""
        self.pacs.received.clear()
        self.bench.courier.step()
        return {str(one.Modality): one for one in self.pacs.received}

    def volumes(self, *, every: bool = False) -> list[VolumePoint]:
        with self.bench.database.read() as connection:
            return history.points(connection, PATIENT) if every else counting(connection, "PHANTOM-1")

    def states(self) -> list[JobState]:
        with self.bench.database.read() as connection:
            return [job.state for job in queue.list_jobs(connection, 10)[::-1]]

    def delivery_states(self) -> list[str]:
        return [state for state, *_ in self.bench.deliveries()]


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.bench.database.close()
    made.pacs.stop()


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    return scan(tmp_path)


def scan(folder: Path, **attributes: str) -> list[Path]:
    (folder / "phantom").mkdir()
    return write_series(folder / "phantom", PhantomOptions(**SMALL, attributes=attributes))


def test_case_08_late_slices_replace_what_was_measured_without_them(ward: Ward, slices: list[Path]) -> None:
    ward.process(slices[:14])
    first = ward.deliver()
    (part,) = ward.volumes()
    ward.process(slices[14:])
    second = ward.deliver()
    (whole,) = ward.volumes()
    assert ward.states() == [JobState.SUPERSEDED, JobState.DONE]
    assert part.volume_ml < whole.volume_ml
    assert [(one.revision, one.superseded) for one in ward.volumes(every=True)] == [(1, True), (2, False)]
    uids = {one.SOPInstanceUID for results in (first, second) for one in results.values()}
    assert len(uids) == 4
    (study,) = second["SR"].PredecessorDocumentsSequence
    (named,) = study.ReferencedSeriesSequence
    assert study.StudyInstanceUID == first["SR"].StudyInstanceUID
    assert named.SeriesInstanceUID == first["SR"].SeriesInstanceUID
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first["SR"].SOPInstanceUID
    assert (second["SEG"].InstanceNumber, second["SR"].InstanceNumber) == (2, 2)
    assert second["SR"].ContentTime > first["SR"].ContentTime


def test_case_08_results_that_wait_for_the_archive_are_never_sent_once_more_came(
    ward: Ward, slices: list[Path]
) -> None:
    ward.process(slices[:14])
    ward.bench.take_in(slices[14:])
    assert ward.delivery_states() == ["cancelled", "cancelled"]
    assert ward.deliver() == {}
    assert ward.volumes() == []  # until the later revision is measured there is none that counts
    ward.process([])
    assert {one.InstanceNumber for one in ward.deliver().values()} == {2}


def test_case_08_a_gap_that_comes_to_light_leaves_no_current_volume(ward: Ward, slices: list[Path]) -> None:
    ward.process(slices[:14])
    ward.deliver()
    ward.process(slices[16:])
    assert ward.states() == [JobState.SUPERSEDED, JobState.REFUSED]
    assert ward.volumes() == []
    assert [one.superseded for one in ward.volumes(every=True)] == [True]
    ward.process(slices)  # the missing two come, and the rest again
    assert ward.states() == [JobState.SUPERSEDED, JobState.SUPERSEDED, JobState.DONE]
    (whole,) = ward.volumes()
    assert whole.revision == 3
    predecessor = ward.deliver()["SR"].PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert predecessor.SeriesInstanceUID  # the report of the first: the second made none


def test_case_08_a_revision_that_is_superseded_while_it_is_measured_publishes_nothing(
    ward: Ward, slices: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = worker.analyse

    def analyse(*arguments: Any) -> Any:
        monkeypatch.setattr(worker, "analyse", honest)
        found = honest(*arguments)
        ward.bench.take_in(slices[14:])
        ward.bench.worker.step()  # another worker, which is faster
        return found

    monkeypatch.setattr(worker, "analyse", analyse)
    ward.process(slices[:14])
    assert ward.states() == [JobState.SUPERSEDED, JobState.DONE]
    assert [one.revision for one in ward.volumes(every=True)] == [2]
    files = list(ward.bench.archive.path("results").rglob("*.dcm"))
    assert len(files) == len(ward.bench.result_files()) == 2
    assert {one.InstanceNumber for one in ward.deliver().values()} == {2}


def test_case_08_a_late_localizer_makes_new_objects_too(ward: Ward, slices: list[Path]) -> None:
    scout = pydicom.dcmread(slices[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    scout.save_as(slices[0].with_name("scout.dcm"))
    ward.process(slices)
    first = ward.deliver()
    ward.process([slices[0].with_name("scout.dcm")])
    second = ward.deliver()
    assert {one.SOPInstanceUID for one in first.values()}.isdisjoint(one.SOPInstanceUID for one in second.values())
    assert len({one.volume_ml for one in ward.volumes(every=True)}) == 1


def test_case_07_a_series_sent_again_is_not_measured_again(ward: Ward, slices: list[Path]) -> None:
    ward.process(slices)
    first = ward.deliver()
    ward.process(slices)
    assert (ward.states(), ward.deliver()) == ([JobState.DONE], {})
    with ward.bench.database.begin() as connection:  # unless an operator asks, and then as the same objects
        queue.requeue(connection, 1, ward.bench.clock())
    ward.process([])
    assert {one.SOPInstanceUID for one in ward.deliver().values()} == {one.SOPInstanceUID for one in first.values()}


def test_case_11_everybody_is_told_that_instances_are_missing(ward: Ward, tmp_path: Path) -> None:
    ward.bench.assembler._complete = CompletenessRule(30, grace_seconds=600)
    paths = scan(tmp_path, ImagesInAcquisition="30")
    ward.process(paths)
    assert ward.states() == []
    ward.bench.clock.advance(600)
    ward.process([])
    missing = "24 of 30 instances, as the headers counted"
    with ward.bench.database.read() as connection:
        timeline = queue.timeline(connection, 1)
    assert timeline[0].note == missing
    assert any(entry.event == "assume" and missing in entry.note for entry in timeline)
    (point,) = ward.volumes()
    assert "incomplete-series" in point.flags
    results = ward.deliver()
    assert missing in results["SR"].to_json()
    assert "INCOMPLETESERIES" in results["SR"].to_json()

"""What a report tells of the patient's earlier volumes, from the database to the archive, and its editions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from dicomnode.arrivals import Patient
from dicomnode.dimse import Line
from dicomnode.store import history, queue
from dicomnode.store.history import Act
from tests.bench import RESULTS, SMALL, Bench, Pacs
from tests.fakes import CARD, threshold_model
from tests.patients import ACT, add_measurement
from tests.phantom import PhantomOptions, write_series

US = Patient("PHANTOM-1", "")
SAME = {"model_name": CARD.name, "model_version": CARD.version}


class Clinic:
    """A node that measured patients before, an archive, and a scan that comes."""

    def __init__(self, folder: Path) -> None:
        self.pacs = Pacs((*RESULTS, EncapsulatedPDFStorage))
        self.bench = Bench(folder, self.pacs.start())
        route = self.bench.courier._route
        self.bench.courier._route = replace(route, sender=replace(cast(Line, route.sender), timeout_s=120.0))
        self.model = threshold_model(spacing_mm=(4.0, 4.0, 4.0), patch=(16, 32, 32))
        self.bench.worker._workplace = replace(self.bench.worker._workplace, model=self.model)

    def measured(self, patient: Patient, series: str, acquired_at: str, volume_ml: float) -> int:
        """A volume of before, by the model that is in use now."""
        with self.bench.database.begin() as connection:
            sha256 = self.model.card.sha256
            return add_measurement(connection, patient, series, acquired_at, volume_ml, model_sha256=sha256, **SAME)

    def scan(self, folder: Path, **attributes: str) -> None:
        (folder / "phantom").mkdir()
        self.bench.take_in(write_series(folder / "phantom", PhantomOptions(**SMALL, attributes=attributes)))

    def report(self, *, again: int | None = None) -> Dataset:
        """The report that the archive gets when the worker has done what there is; again: after a requeue."""
        if again is not None:
            with self.bench.database.begin() as connection:
                queue.requeue(connection, again, self.bench.clock())
        assert self.bench.worker.step()
        self.pacs.received.clear()
        self.bench.courier.step()
        return next(one for one in self.pacs.received if one.Modality == "SR")

    def newest(self) -> int:
        with self.bench.database.read() as connection:
            return queue.list_jobs(connection, 1)[0].id


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    made = Clinic(tmp_path)
    yield made
    made.bench.database.close()
    made.pacs.stop()


def told(sr: Dataset) -> str:
    """All that the report says in words."""
    parts = (one for part in sr.ContentSequence for one in part.get("ContentSequence", []))
    return "\n".join(item.TextValue for item in parts if item.ValueType == "TEXT")


def predecessors(sr: Dataset) -> list[str]:
    return [
        instance.ReferencedSOPInstanceUID
        for study in sr.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


def test_case_33_a_report_tells_what_was_acquired_before_and_counts(clinic: Clinic, tmp_path: Path) -> None:
    clinic.measured(US, "7.1", "20190101", 80.0)
    wrong = clinic.measured(US, "7.2", "20200101", 20.0)
    clinic.measured(US, "7.3", "20990101", 70.0)
    clinic.measured(Patient("PHANTOM-1", "another issuer"), "7.4", "20180101", 55.0)
    clinic.measured(Patient("MERGED", ""), "7.5", "20170101", 90.0)
    with clinic.bench.database.begin() as connection:
        history.invalidate(connection, wrong, ACT)
        history.merge(connection, Patient("MERGED", ""), US, ACT)
    clinic.scan(tmp_path, AcquisitionDate="20240101", AcquisitionTime="101500")
    words = told(clinic.report())
    assert "Earlier volumes: 2." in words
    assert ("2017-01-01: 90.0 mL" in words, "2019-01-01: 80.0 mL" in words) == (True, True)
    assert "Changes since the last of them: below 10 % within measurement error" in words


def test_case_32_a_volume_of_another_model_is_told_as_not_comparable(clinic: Clinic, tmp_path: Path) -> None:
    with clinic.bench.database.begin() as connection:
        add_measurement(connection, US, "7.1", "20190101", 80.0)
    clinic.scan(tmp_path, AcquisitionDate="20240101")
    assert "not comparable: measured by m 1 and by threshold 1" in told(clinic.report())


def test_case_22_without_a_patient_id_nothing_is_told(clinic: Clinic, tmp_path: Path) -> None:
    clinic.measured(Patient("", ""), "7.1", "20190101", 80.0)
    clinic.scan(tmp_path, AcquisitionDate="20240101", PatientID="")
    assert "Earlier volumes" not in told(clinic.report())


def test_the_same_priors_make_the_same_report_and_others_an_edition(clinic: Clinic, tmp_path: Path) -> None:
    clinic.scan(tmp_path, AcquisitionDate="20240101")
    first = clinic.report()
    job = clinic.newest()
    earlier = clinic.measured(US, "7.1", "20190101", 80.0)
    second = clinic.report(again=job)
    same = clinic.report(again=job)
    with clinic.bench.database.begin() as connection:
        history.invalidate(connection, earlier, Act("reader", "outlined the stomach", clinic.bench.clock()))
    third = clinic.report(again=job)
    assert same == second
    assert len({one.SOPInstanceUID for one in (first, second, third)}) == 3
    assert [predecessors(one) for one in (first, second, third)] == [
        [], [first.SOPInstanceUID], [second.SOPInstanceUID],
    ]  # fmt: skip
    assert told(third).count("Earlier volumes") == 0


def test_of_an_edition_that_was_not_sent_the_sending_is_cancelled(clinic: Clinic, tmp_path: Path) -> None:
    clinic.scan(tmp_path, AcquisitionDate="20240101")
    assert clinic.bench.worker.step()
    job = clinic.newest()
    clinic.measured(US, "7.1", "20190101", 80.0)
    assert "Earlier volumes: 1." in told(clinic.report(again=job))
    assert [one.Modality for one in clinic.pacs.received].count("SR") == 1
    assert sorted(state for state, *_ in clinic.bench.deliveries()) == ["cancelled", "sent", "sent"]


def test_a_history_that_cannot_be_told_stops_no_analysis(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.measured(US, "7.1", "20190101", 80.0)
    monkeypatch.setattr(history, "points", None)
    clinic.scan(tmp_path, AcquisitionDate="20240101")
    assert "Earlier volumes" not in told(clinic.report())


def test_a_page_is_a_third_result_where_it_is_wanted(clinic: Clinic, tmp_path: Path) -> None:
    clinic.measured(US, "7.1", "20190101", 80.0)
    clinic.bench.worker._workplace = replace(clinic.bench.worker._workplace, page=True)
    clinic.scan(tmp_path, AcquisitionDate="20240101")
    sr = clinic.report()
    page = next(one for one in clinic.pacs.received if one.Modality == "DOC")
    assert sr.SOPInstanceUID in {one.ReferencedSOPInstanceUID for one in page.SourceInstanceSequence}
    assert (page.StudyInstanceUID, page.PatientID) == (sr.StudyInstanceUID, sr.PatientID)
    assert page.EncapsulatedDocument.startswith(b"%PDF-")


def test_a_page_that_cannot_be_drawn_keeps_back_nothing_else(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.bench.worker._workplace = replace(clinic.bench.worker._workplace, page=True)
    monkeypatch.setattr("pipeline.analyse.to_pdf", None)
    clinic.scan(tmp_path, AcquisitionDate="20240101")
    clinic.report()
    assert sorted(one.Modality for one in clinic.pacs.received) == ["SEG", "SR"]


def test_a_series_without_a_date_has_a_page_and_no_priors(clinic: Clinic, tmp_path: Path) -> None:
    clinic.measured(US, "7.1", "20190101", 80.0)
    clinic.bench.worker._workplace = replace(clinic.bench.worker._workplace, page=True)
    clinic.scan(tmp_path, AcquisitionDate="2024", AcquisitionDateTime="", ContentDate="", SeriesDate="", StudyDate="")
    assert "Earlier volumes" not in told(clinic.report())
    assert len(clinic.pacs.received) == 3

"""The pages of patients: the table, the plot and the files tell the same truth about each volume."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lxml import html
from starlette.testclient import TestClient

from dicomnode.arrivals import Patient
from dicomnode.database import Connection
from dicomnode.history import Standing, timeline
from dicomnode.sections import HistorySettings
from dicomnode.store import history
from dicomnode.tables import prior_reports
from dicomnode.web import plot
from tests.audit_messages import kind, read_messages
from tests.clinic import Clinic
from tests.patients import ACT, NOW, add_five_studies, add_measurement

ANNA = Patient("P/1 ?", "HOSPITAL-A")


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


@contextmanager
def writing(clinic: Clinic) -> Iterator[Connection]:
    with clinic.database.begin() as connection:
        yield connection


def browse(clinic: Clinic) -> TestClient:
    return TestClient(clinic.app(), base_url="http://localhost")


def look(clinic: Clinic, path: str) -> Any:
    answer = browse(clinic).get(path)
    assert answer.status_code == 200, answer.text
    return html.fromstring(answer.text)


def read_rows(page: Any, caption: str) -> list[list[str]]:
    """The texts of the cells of a table."""
    (table,) = page.xpath(f"//table[caption[starts-with(., '{caption}')]]")
    return [[" ".join(cell.text_content().split()) for cell in row] for row in table.xpath("tbody/tr")]


def test_five_studies_out_of_order_by_two_models_one_invalid_one_a_lower_bound(clinic: Clinic) -> None:
    """The judged case: table, plot and CSV tell the truth about each."""
    with writing(clinic) as connection:
        jobs = add_five_studies(connection, ANNA)
    page = look(clinic, f"/patients/{jobs[2]}")

    counting = read_rows(page, "Volumes that count")
    assert [row[:2] for row in counting] == [
        ["2019-01-01 08:00", "80.0 mL"],
        ["2020-01-01 08:00", "84.0 mL"],
        ["2022-01-01 08:00", "at least 50.0 mL"],
        ["2023-01-01 08:00", "60.0 mL"],
    ]
    assert counting[1][2] == "+4.0 mL (+5.0 %) since 2019-01-01 within measurement error"
    assert "not comparable: the later volume is a lower bound" in counting[2][2]
    assert "not comparable: measured by m 1 and by m 2; the earlier volume is a lower bound" in counting[3][2]
    assert counting[3][3].startswith("-20.0 mL (-25.0 %) since 2019-01-01 not comparable: measured by m 1 and by m 2")
    (invalid,) = read_rows(page, "Results that do not count")
    assert invalid[:2] == ["2021-01-01 08:00", "20.0 mL"]
    assert "outlined the stomach (reader, 2026-01-02)" in invalid[2]

    marks = page.xpath("//*[@id='plot']//a[contains(@class, 'mark')]")
    assert [mark.get("class").split() for mark in marks] == [
        ["mark", "m0", "counts"],
        ["mark", "m0", "counts"],
        ["mark", "m0", "invalid"],
        ["mark", "m0", "counts"],
        ["mark", "m1", "counts"],
    ]
    places = [[float(number) for number in re.findall(r"[\d.]+", mark.get("transform"))] for mark in marks]
    years = [x for x, _ in places]
    assert years == sorted(years)
    assert years[1] - years[0] == pytest.approx(years[4] - years[3], abs=0.3)  # 365 days each: the axis is true
    heights = [plot.BOTTOM - y for _, y in places]
    assert heights == pytest.approx([height * heights[0] / 80 for height in (80, 84, 20, 50, 60)], abs=0.1)
    arrows = [len(mark.xpath("*[@d='M0-12V-27M-5-21L0-27L5-21']")) for mark in marks]
    assert arrows == [0, 0, 0, 1, 0]
    assert len({mark.xpath("*[@class='shape']/@d")[0] for mark in (marks[0], marks[4])}) == 2
    assert len(page.xpath("//*[@class='change']")) == 1  # only 2019 and 2020 can be compared
    assert [mark.get("href") for mark in marks] == [f"/jobs/{jobs[index]}/overlay" for index in (1, 4, 3, 0, 2)]
    assert "outlined the stomach" in marks[2].get("aria-label")

    rows = list(csv.DictReader(io.StringIO(browse(clinic).get(f"/patients/{jobs[0]}/volumes.csv").text)))
    told = [(row["acquired_at"][:4], row["volume_ml"], row["standing"], row["is_lower_bound"]) for row in rows]
    assert told == [
        ("2019", "80.0", "counts", "False"),
        ("2020", "84.0", "counts", "False"),
        ("2021", "20.0", "invalid", "False"),
        ("2022", "50.0", "counts", "True"),
        ("2023", "60.0", "counts", "False"),
    ]
    picture = browse(clinic).get(f"/patients/{jobs[0]}/volumes.png")
    assert picture.content.startswith(b"\x89PNG")
    assert "attachment" in picture.headers["content-disposition"]


def test_a_volume_that_only_an_archives_report_tells_is_shown_with_its_source(clinic: Clinic) -> None:
    report = {
        "sop_instance_uid": "2.25.1", "series_instance_uid": "1.2.840.7", "study_instance_uid": "1", "revision": 1,
        "patient_id": ANNA.id, "issuer_of_patient_id": ANNA.issuer, "acquired_at": "20180101", "volume_ml": 90.0,
        "flags": [], "model_name": "m", "model_version": "1", "model_sha256": "a" * 64, "measured_at": NOW,
        "source": "the archive PACS", "found_at": NOW,
    }  # fmt: skip
    with writing(clinic) as connection:
        job_id = add_measurement(connection, ANNA, "1", "20200101", 80.0)
        connection.execute(prior_reports.insert().values(report))
    page = look(clinic, f"/patients/{job_id}")
    told, measured = read_rows(page, "Volumes that count")
    assert (told[1], told[-1]) == ("90.0 mL", "report in the archive PACS")
    assert measured[2] == "-10.0 mL (-11.1 %) since 2018-01-01 indeterminate: look at phase, thickness and outline"
    assert page.xpath("//*[@id='plot']//a/@href") == ["#row-0", f"/jobs/{job_id}/overlay"]
    assert page.xpath("//tr[@id='row-0']")


def test_looking_at_a_patient_and_taking_a_file_away_stand_on_the_audit_trail(clinic: Clinic) -> None:
    with writing(clinic) as connection:
        job_id = add_measurement(connection, ANNA, "1", "20200101", 80.0)
    look(clinic, f"/patients/{job_id}")
    browse(clinic).get(f"/patients/{job_id}/volumes.csv")
    looked, *_, exported = read_messages(clinic.settings.audit_folder)
    assert kind(looked) == "DICOM Instances Accessed"
    assert kind(exported) == "Export"
    assert f"http://localhost/patients/{job_id}/volumes.csv" in exported.xpath("//ActiveParticipant/@UserID")
    assert ANNA.id in exported.xpath("//@ParticipantObjectID")[-1]


def test_case_32_volumes_of_two_versions_are_not_compared(clinic: Clinic) -> None:
    with writing(clinic) as connection:
        add_measurement(connection, ANNA, "1", "20200101", 80.0)
        job_id = add_measurement(connection, ANNA, "2", "20210101", 60.0, model_version="2")
    page = look(clinic, f"/patients/{job_id}")
    assert "not comparable: measured by m 1 and by m 2" in read_rows(page, "Volumes that count")[1][2]
    assert page.xpath("//*[@class='change']") == []


def test_case_33_merged_patients_are_one_history_that_says_so(clinic: Clinic) -> None:
    married = Patient("P-2", "")
    with writing(clinic) as connection:
        add_measurement(connection, ANNA, "1", "20200101101500", 80.0)
        job_id = add_measurement(connection, married, "2", "20200101093000", 81.0)  # earlier on the same day
        history.merge(connection, married, ANNA, ACT)
    page = look(clinic, f"/patients/{job_id}")
    rows = read_rows(page, "Volumes that count")
    assert [row[0] for row in rows] == ["2020-01-01 09:30", "2020-01-01 10:15"]
    assert "P-2 counts as P/1 ? of HOSPITAL-A: outlined the stomach" in " ".join(page.text_content().split())
    assert page.xpath("//dd/text()")[:2] == ["P/1 ?", "HOSPITAL-A"]


def test_case_33_a_patient_may_be_merged_into_one_who_has_no_series_yet(clinic: Clinic) -> None:
    with writing(clinic) as connection:
        job_id = add_measurement(connection, ANNA, "1", "20200101", 80.0)
        history.merge(connection, ANNA, Patient("P-9", ""), ACT)
    assert look(clinic, f"/patients/{job_id}").xpath("//dd/text()")[0] == "P-9"


def test_case_22_no_patient_id_has_no_page_and_two_issuers_are_two_patients(clinic: Clinic) -> None:
    with writing(clinic) as connection:
        nobody = add_measurement(connection, Patient("", ""), "0", "20200101", 70.0)
        one = add_measurement(connection, Patient("P-1", "A"), "1", "20200101", 80.0)
        add_measurement(connection, Patient("P-1", "B"), "2", "20210101", 60.0)
    assert browse(clinic).get(f"/patients/{nobody}").status_code == 404
    assert len(read_rows(look(clinic, f"/patients/{one}"), "Volumes that count")) == 1
    listed = read_rows(look(clinic, "/patients"), "The last scanned")
    assert [row[:2] for row in listed] == [["P-1", "B"], ["P-1", "A"]]


def test_case_21_names_are_shown_as_they_are_and_found(clinic: Clinic) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    with writing(clinic) as connection:
        job_id = add_measurement(connection, ANNA, "1", "20200101", 80.0, patient_name=name)
        add_measurement(connection, Patient("P-2", ""), "2", "20200101", 80.0, patient_name="<b>Müller</b>^Anna")
    assert look(clinic, f"/patients/{job_id}").xpath("//h1")[0].text == name
    found = read_rows(look(clinic, "/patients?search=太郎"), "1 found")
    assert [row[0] for row in found] == [ANNA.id]
    assert read_rows(look(clinic, "/patients?search=p-2"), "1 found")[0][2] == "<b>Müller</b>^Anna"
    assert "Nobody" in look(clinic, "/patients?search=%25").text_content()


def test_case_23_nothing_found_is_said_and_is_no_point(clinic: Clinic) -> None:
    with writing(clinic) as connection:
        add_measurement(connection, ANNA, "1", "20200101", None)
        job_id = add_measurement(connection, ANNA, "2", "", 70.0)
    page = look(clinic, f"/patients/{job_id}")
    nothing, undated = read_rows(page, "Results that do not count")
    assert nothing[:2] == ["2020-01-01", "not found"]
    assert undated[:2] == ["undated", "70.0 mL"]
    assert page.xpath("//*[@id='plot']") == []
    assert browse(clinic).get(f"/patients/{job_id}/volumes.csv").text.count("\n") == 3


def test_no_address_of_a_page_holds_a_patient_id(clinic: Clinic) -> None:
    with writing(clinic) as connection:
        job_id = add_measurement(connection, Patient("SECRET-7", ""), "1", "20200101", 80.0)
    for path in ("/patients", f"/patients/{job_id}"):
        assert not [link for link in look(clinic, path).xpath("//@href | //@src | //@action") if "SECRET" in link]


@pytest.mark.parametrize(
    ("dates", "ticks"),
    [
        (["20200101101500", "20200101163000"], "2019-12-03 2019-12-17 2019-12-31 2020-01-14 2020-01-28"),
        (["20200105", "20200903"], "2020-03 2020-05 2020-07 2020-09"),
        (["19990701", "20240701"], "2000 2005 2010 2015 2020"),
    ],
)
def test_time_runs_on_a_true_scale_with_few_ticks(clinic: Clinic, dates: list[str], ticks: str) -> None:
    with writing(clinic) as connection:
        for index, day in enumerate(dates):
            add_measurement(connection, ANNA, f"{index}", day, 80.0)
        entries = timeline(history.points(connection, ANNA), HistorySettings())
    drawn = plot.lay_out(entries, HistorySettings())
    assert drawn is not None
    assert " ".join(tick.text for tick in drawn.times) == ticks
    days = [date.fromisoformat((tick.text + "-01-01")[:10]).toordinal() for tick in drawn.times]
    places = [tick.at for tick in drawn.times]
    assert np.diff(places) / np.diff(days) == pytest.approx((places[-1] - places[0]) / (days[-1] - days[0]))
    assert places[0] > plot.LEFT
    assert places[-1] < plot.RIGHT


def test_the_bands_lie_around_the_first_volume_that_counts(clinic: Clinic) -> None:
    with writing(clinic) as connection:
        history.invalidate(connection, add_measurement(connection, ANNA, "1", "20190101", 20.0), ACT)
        add_measurement(connection, ANNA, "2", "20200101", 80.0, repeatability_percent=15.0)
        entries = timeline(history.points(connection, ANNA), HistorySettings())
    drawn = plot.lay_out(entries, HistorySettings())
    assert drawn is not None
    assert drawn.within is not None
    assert drawn.indeterminate is not None
    (mark,) = (mark for mark in drawn.marks if mark.entry.standing is Standing.COUNTS)
    up = plot.BOTTOM - mark.y
    assert drawn.within.x == mark.x
    assert (plot.BOTTOM - drawn.within.top) / up == pytest.approx(1.15)  # the model's repeatability is worse than 10 %
    assert (plot.BOTTOM - drawn.indeterminate.bottom) / up == pytest.approx(0.75)

"""What people say of results and patients: marked invalid, restored, merged, unmerged; and the cohort as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode import cohort
from dicomnode.arrivals import Patient
from dicomnode.database import Connection, Database
from dicomnode.errors import Refused
from dicomnode.history import Standing, tabulate, timeline
from dicomnode.sections import HistorySettings
from dicomnode.store import Unknown, history, queue
from dicomnode.store.history import Act
from dicomnode.tables import prior_reports
from tests.patients import ACT, NOW, add_five_studies, add_measurement
from tests.volumes import counting

A, B, C = Patient("A", ""), Patient("B", ""), Patient("C", "SITE")


@pytest.fixture
def connection(either_database: Database) -> Iterator[Connection]:
    with either_database.begin() as opened:
        yield opened


def standings(connection: Connection, patient: Patient = A) -> list[Standing]:
    return [entry.standing for entry in timeline(history.points(connection, patient), HistorySettings())]


def test_an_invalid_result_stays_and_no_longer_counts(connection: Connection) -> None:
    one, two = (add_measurement(connection, A, f"1.{n}", f"202{n}0101", 80.0 + n) for n in (0, 1))
    history.invalidate(connection, one, ACT)
    assert standings(connection) == [Standing.INVALID, Standing.COUNTS]
    assert history.points(connection, A)[0].invalid == "outlined the stomach (reader, 2026-01-02)"
    with pytest.raises(Refused, match="already"):
        history.invalidate(connection, one, ACT)
    history.restore(connection, one, Act("chief", "looked again", NOW))
    assert standings(connection) == [Standing.COUNTS, Standing.COUNTS]
    with pytest.raises(Refused, match="not marked"):
        history.restore(connection, two, ACT)
    history.invalidate(connection, one, ACT)  # a third time is possible
    assert [entry.event for entry in queue.timeline(connection, one)][-3:] == ["invalidate", "restore", "invalidate"]
    assert queue.timeline(connection, one)[-2].note == "chief: looked again"


def test_only_a_result_can_be_invalid(connection: Connection) -> None:
    with pytest.raises(Unknown):
        history.invalidate(connection, 99, ACT)
    with pytest.raises(ValueError, match="a person and a reason"):
        Act("reader", " ", NOW)


def test_case_33_merges_bring_patients_together_and_are_undone(connection: Connection) -> None:
    for number, patient in enumerate((A, B, C)):
        add_measurement(connection, patient, f"1.{number}", f"202{number}0101", 80.0)
    history.merge(connection, A, B, ACT)
    history.merge(connection, B, C, ACT)
    for patient in (A, B, C):
        assert [point.patient_id for point in history.points(connection, patient)] == ["A", "B", "C"]
    assert history.everyone(connection, A)[0] == C
    assert set(history.all_points(connection)) == {C}
    assert {one.patient: one.merged_into for one in history.patients(connection, "", 9)} == {A: C, B: C, C: None}
    for one, other in ((A, C), (C, A), (C, C), (C, Patient("", "")), (Patient("", ""), C)):
        with pytest.raises(Refused):
            history.merge(connection, one, other, ACT)
    undone = history.unmerge(connection, B, Act("chief", "another person", NOW))
    assert (undone.patient, undone.into, undone.undone and undone.undone.by) == (B, C, "chief")
    assert [point.patient_id for point in history.points(connection, C)] == ["C"]
    assert [point.patient_id for point in history.points(connection, A)] == ["A", "B"]
    with pytest.raises(Refused, match="not merged"):
        history.unmerge(connection, B, ACT)
    assert [len(history.list_merges(connection, every=every)) for every in (False, True)] == [1, 2]


def test_case_22_nobody_is_grouped_under_an_empty_id(connection: Connection) -> None:
    add_measurement(connection, Patient("", ""), "1.1", "20200101", 80.0)
    assert history.points(connection, Patient("", "")) == []
    assert history.patients(connection, "", 9) == []
    assert history.all_points(connection) == {}
    assert history.issuers(connection, "") == []


def test_patients_are_found_by_id_and_name_to_the_letter(connection: Connection) -> None:
    add_measurement(connection, A, "1.1", "20200101", 80.0, patient_name="Müller^Jörg")
    add_measurement(connection, Patient("A%", ""), "1.2", "20210101", 80.0, patient_name="Wang^XiaoDong=王^小东")
    found = {
        text: [one.patient.id for one in history.patients(connection, text, 9)] for text in ("A", "%", "müller", "王")
    }
    assert found == {"A": ["A%", "A"], "%": ["A%"], "müller": ["A"], "王": ["A%"]}


def test_what_only_an_archive_knows_counts_until_the_node_measures_it_itself(connection: Connection) -> None:
    for revision, volume_ml in ((1, 60.0), (2, 70.0)):
        values = {
            "sop_instance_uid": f"2.25.{revision}", "series_instance_uid": "1.2.840.1.1", "study_instance_uid": "1",
            "patient_id": "A", "issuer_of_patient_id": "", "acquired_at": "20150101", "revision": revision,
            "volume_ml": volume_ml, "flags": [], "model_name": "m", "model_version": "1", "model_sha256": "a" * 64,
            "measured_at": NOW, "source": "archive PACS", "found_at": NOW,
        }  # fmt: skip
        connection.execute(prior_reports.insert().values(values))
    assert standings(connection) == [Standing.SUPERSEDED, Standing.COUNTS]
    (point,) = counting(connection, "A")
    assert (point.volume_ml, point.job_id, point.source) == (70.0, None, "archive PACS")
    add_measurement(connection, A, "1.1", "20150101", 72.0)
    assert [point.volume_ml for point in history.points(connection, A)] == [72.0]


def test_five_studies_out_of_order_two_models_one_invalid_one_lower_bound(connection: Connection) -> None:
    add_five_studies(connection, A)
    rows = [tabulate(entry) for entry in timeline(history.points(connection, A), HistorySettings())]
    told = list(csv.DictReader(io.StringIO(cohort.to_csv(rows))))
    shown = [
        (
            row["acquired_at"][:4],
            row["volume_ml"],
            row["standing"],
            row["band_since_first"],
            row["not_comparable_because_since_previous"],
        )
        for row in told
    ]
    assert shown == [
        ("2019", "80.0", "counts", "", ""),
        ("2020", "84.0", "counts", "within", ""),
        ("2021", "20.0", "invalid", "", ""),
        ("2022", "50.0", "counts", "", "the later volume is a lower bound"),
        ("2023", "60.0", "counts", "", "measured by m 1 and by m 2; the earlier volume is a lower bound"),
    ]
    assert [row["is_lower_bound"] for row in told] == ["False", "False", "False", "True", "False"]
    assert told[2]["invalid_because"] == "outlined the stomach (reader, 2026-01-02)"


def cohort_rows(connection: Connection) -> list[cohort.Row]:
    everybody = history.all_points(connection)
    return [
        {"counts_for": patient.id, **tabulate(entry)}
        for patient, points in everybody.items()
        for entry in timeline(points, HistorySettings())
    ]


def test_a_pseudonymised_cohort_holds_nothing_that_identifies(connection: Connection) -> None:
    add_five_studies(connection, Patient("ZZPATIENT", "ZZISSUER"))
    rows = cohort.pseudonymise(cohort_rows(connection), b"k" * 16)
    text = cohort.to_csv(rows)
    for secret in ("ZZPATIENT", "ZZISSUER", "2019", "2020", "2026", "1.2.840", "stomach", "reader"):
        assert secret not in text
    assert len({row["patient"] for row in rows}) == 1
    assert [row["day"] for row in rows] == [0.0, 365.0, 731.0, 1096.0, 1461.0]
    assert [row["volume_ml"] for row in rows] == [80.0, 84.0, 20.0, 50.0, 60.0]
    again, other = (cohort.pseudonymise(cohort_rows(connection), key * 16) for key in (b"k", b"j"))
    assert again == rows
    assert {row["series_instance_uid"] for row in other}.isdisjoint(row["series_instance_uid"] for row in rows)


def test_tables_are_written_as_their_ending_says(connection: Connection, tmp_path: Path) -> None:
    from pyarrow import parquet

    add_five_studies(connection, Patient("=HYPERLINK(1)", ""))
    rows = cohort_rows(connection)
    cohort.write(rows, tmp_path / "table.parquet")
    assert parquet.read_table(tmp_path / "table.parquet").to_pylist() == rows
    cohort.write(rows, tmp_path / "table.csv")
    assert {row["patient_id"] for row in csv.DictReader((tmp_path / "table.csv").open())} == {"'=HYPERLINK(1)"}
    with pytest.raises(Refused, match="the ending decides"):
        cohort.write(rows, tmp_path / "table.xlsx")


def test_a_key_that_hides_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short\n")
    with pytest.raises(Refused, match="16 bytes"):
        cohort.read_key(tmp_path / "key")
    with pytest.raises(Refused, match="cannot be read"):
        cohort.read_key(tmp_path / "none")
    assert cohort.read_key(None) != cohort.read_key(None)


def test_times_are_of_the_database(connection: Connection) -> None:
    add_measurement(connection, A, "1.1", "20200101", 80.0)
    assert history.points(connection, A)[0].measured_at == datetime(2026, 1, 2, tzinfo=UTC)

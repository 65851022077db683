"""The overlay viewer's page and what it fetches."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from dicomnode.store import history, queue, viewing
from dicomnode.tables import instances, measurements
from dicomnode.web import overlay
from pipeline.series import open_series, read_volume
from tests.clinic import SHAPE, SPACING_MM, Clinic, fast_model
from tests.patients import ACT
from tests.phantom import PhantomOptions, scan, write_multiframe, write_series


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


def browse(clinic: Clinic) -> TestClient:
    return TestClient(clinic.app(), base_url="http://localhost")


def test_every_slice_is_sent_as_it_was_measured(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    original = overlay.open_series
    monkeypatch.setattr(overlay, "open_series", lambda paths: opened.append(paths) or original(paths))
    job_id = clinic.measure()
    client = browse(clinic)
    page = client.get(f"/jobs/{job_id}/overlay").text
    for side, letter in {"top": "A", "right": "L", "bottom": "P", "left": "R"}.items():
        assert f'<span class="side {side}">{letter}</span>' in page
    for told in ("Pancreas 35.8 mL", "AI, unverified, not for diagnosis", "threshold 1", f"/patients/{job_id}"):
        assert told in page
    listed = client.get(f"/jobs/{job_id}/overlay/slices").json()
    assert (len(listed["slices"]), listed["rows"], listed["columns"]) == SHAPE
    assert listed["spacing_mm"] == [4.0, 4.0]
    marked = [number for number, one in enumerate(listed["slices"], 1) if one["outline"]]
    assert f"slices {marked[0]} to {marked[-1]}" in page
    with clinic.database.read() as connection:
        sources = viewing.sources(connection, queue.job(connection, job_id))
    hounsfield = read_volume(open_series([clinic.archive.path(image) for image in sources.images])).hounsfield
    for number in (1, 9, 20):
        answer = client.get(f"/jobs/{job_id}/overlay/slices/{number}")
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["cache-control"] == "no-store"
        np.testing.assert_array_equal(np.frombuffer(answer.content, "<i2"), hounsfield[number - 1].ravel())
    for number in (0, 21):
        assert client.get(f"/jobs/{job_id}/overlay/slices/{number}").status_code == 404
    assert len(opened) == 1


def test_images_that_retention_removed_are_said_to_be_gone(clinic: Clinic) -> None:
    job_id = clinic.measure()
    with clinic.database.begin() as connection:
        connection.execute(update(instances).where(instances.c.id <= 2).values(removed_at=clinic.now, path=""))
    answer = browse(clinic).get(f"/jobs/{job_id}/overlay")
    assert answer.status_code == 200
    assert "2 files were removed by retention" in answer.text
    assert "<canvas" not in answer.text
    assert browse(clinic).get(f"/jobs/{job_id}/overlay/slices/1").status_code == 410


def test_a_mask_that_is_not_what_was_measured_is_not_shown(clinic: Clinic) -> None:
    job_id = clinic.measure()
    with clinic.database.begin() as connection:
        connection.execute(update(measurements).values(volume_ml=40.0))
    assert "the stored mask holds 35.8 mL, measured were 40.0 mL" in browse(clinic).get(f"/jobs/{job_id}/overlay").text


def test_the_mask_is_of_the_model_that_measured_last(clinic: Clinic) -> None:
    models = [fast_model(), fast_model(115.0, version="2", sha256="2" * 64)]
    job_id = clinic.measure(models[0])
    volumes = []
    for model in (models[1], models[0]):
        clinic.now += timedelta(minutes=1)
        with clinic.database.begin() as connection:
            queue.requeue(connection, job_id, clinic.now)
        clinic.work(model)
        with clinic.database.read() as connection:
            volumes.append(history.of_job(connection, job_id).volume_ml)
        page = browse(clinic).get(f"/jobs/{job_id}/overlay").text
        assert f"Pancreas {volumes[-1]:.1f} mL" in page
        assert "the stored mask holds" not in page
    assert volumes[0] < volumes[1]


def test_case_23_slices_are_shown_where_nothing_was_found(clinic: Clinic) -> None:
    job_id = clinic.measure(fast_model(3000))
    page = browse(clinic).get(f"/jobs/{job_id}/overlay").text
    assert "Pancreas not found" in page
    assert "nothing marked" in page
    assert not any(one["outline"] for one in browse(clinic).get(f"/jobs/{job_id}/overlay/slices").json()["slices"])


def test_case_14_a_series_that_makes_no_volume_says_why(clinic: Clinic) -> None:
    page = browse(clinic).get(f"/jobs/{clinic.receive(missing=[7])}/overlay").text
    assert "The job is queued" in page
    assert "The images cannot be shown:</strong> 1 slice is missing between" in page


def test_an_invalid_result_says_so(clinic: Clinic) -> None:
    job_id = clinic.measure()
    with clinic.database.begin() as connection:
        history.invalidate(connection, job_id, ACT)
    assert "Marked as invalid:</strong> outlined the stomach" in browse(clinic).get(f"/jobs/{job_id}/overlay").text


def test_case_19_a_multi_frame_file_is_looked_at_slice_by_slice(clinic: Clinic, tmp_path: Path) -> None:
    options = PhantomOptions(shape=SHAPE, spacing_mm=SPACING_MM, order="shuffled")
    job_id = clinic.receive_files([write_multiframe(tmp_path / "enhanced.dcm", options)])
    clinic.work(fast_model())
    client = browse(clinic)
    slices = client.get(f"/jobs/{job_id}/overlay/slices").json()["slices"]
    assert [slices[0]["place"], slices[-1]["place"]] == ["H 47.5 mm", "F 47.5 mm"]
    hounsfield = scan(options)[::-1]  # from the head down
    for number in (1, 9):
        sent = np.frombuffer(client.get(f"/jobs/{job_id}/overlay/slices/{number}").content, "<i2")
        np.testing.assert_allclose(sent, hounsfield[number - 1].ravel(), atol=0.51)
    assert slices[8]["area_mm2"] == np.count_nonzero(hounsfield[8] > 90) * 16


def test_case_08_a_superseded_revision_shows_the_slices_it_knew_and_counts_no_more(
    clinic: Clinic, tmp_path: Path
) -> None:
    slices = write_series(tmp_path, PhantomOptions(shape=SHAPE, spacing_mm=SPACING_MM))
    jobs = []
    for part in (slices[:12], slices[12:]):
        jobs.append(clinic.receive_files(part))
        clinic.work(fast_model())
    client = browse(clinic)
    counts = [len(client.get(f"/jobs/{job_id}/overlay/slices").json()["slices"]) for job_id in jobs]
    assert counts == [12, 20]
    early, late = (client.get(f"/jobs/{job_id}/overlay").text for job_id in jobs)
    assert "Superseded:</strong> superseded by revision 2" in early
    assert "at least" in early  # the twelve slices end in the organ
    assert "uperseded" not in late
    patient = client.get(f"/patients/{jobs[0]}").text
    assert '<a class="mark m0 superseded"' in patient
    assert "A later revision of the series took its place." in patient

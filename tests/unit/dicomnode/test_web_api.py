"""The API says what the pages show, as its description promises; metrics in Prometheus' format."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from dicomnode.store import presence, queue
from dicomnode.web import api
from tests.clinic import Clinic

PATIENT = {"PatientName": "Doe^Jane", "PatientID": "P-4711"}
LISTS = (
    "/api/v1/jobs",
    "/api/v1/deliveries",
    "/api/v1/pulls",
    "/api/v1/refusals",
    "/api/v1/alarms",
    "/api/v1/patients",
)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    """With two series of a patient: one measured, one refused."""
    clinic = Clinic(tmp_path_factory.mktemp("clinic"))
    clinic.measure(attributes=PATIENT)
    clinic.receive(attributes=PATIENT, seed="another")
    with clinic.database.begin() as connection:
        held = queue.claim(connection, "me", clinic.now, 60)
        assert held
        queue.refuse(connection, held, "a slice is missing", clinic.now)
        presence.show(connection, ["worker"], "here:1", clinic.now - timedelta(seconds=20))
    return clinic


@pytest.fixture
def client(clinic: Clinic) -> TestClient:
    return TestClient(clinic.app(), base_url="http://localhost", follow_redirects=False)


def get(client: TestClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_overview(client: TestClient) -> None:
    overview = get(client, "/api/v1/overview")
    assert overview["jobs"] == {"done": 1, "refused": 1}
    assert {check["name"] for check in overview["checks"]} > {"database", "disk", "worker"}


def test_jobs_in_a_list_and_one_with_all_about_it(client: TestClient) -> None:
    second, first = get(client, "/api/v1/jobs")
    assert (second["state"], second["reason"], second["volume_ml"]) == ("refused", "a slice is missing", None)
    assert first["volume_ml"] > 0
    assert get(client, "/api/v1/jobs?state=done&state=failed") == [first]
    assert get(client, f"/api/v1/jobs?before={second['id']}&limit=1") == [first]
    report = get(client, f"/api/v1/jobs/{first['id']}")
    assert report["job"] == first
    assert report["labels"]["name"] == "Doe^Jane"
    assert report["measurement"]["volume_ml"] == first["volume_ml"]
    assert [move["event"] for move in report["timeline"]] == ["create", "claim", "finish"]
    assert len(report["results"]) == 2


def test_volumes_of_a_patient(client: TestClient) -> None:
    (entry,) = get(client, "/api/v1/volumes?patient_id=P-4711")
    assert (entry["standing"], entry["previous"]) == ("counts", None)
    assert get(client, "/api/v1/volumes?patient_id=P-4711&issuer=elsewhere") == []
    (patient,) = get(client, "/api/v1/patients?search=doe")
    assert patient["patient"] == {"id": "P-4711", "issuer": ""}


@pytest.mark.parametrize("path", [path for path in LISTS if "patients" not in path])
def test_lists_name_no_patient(client: TestClient, path: str) -> None:
    text = client.get(path).text
    assert "P-4711" not in text
    assert "Doe" not in text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/jobs/99", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/jobs?limit=0", 422),
        ("/api/v1/jobs?state=Doe", 422),
        ("/api/v1/volumes", 422),
    ],
)
def test_errors_are_problems(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert set(answer.json()) == {"type", "title", "status", "detail"}


def test_the_description_names_every_request_and_what_it_answers(client: TestClient) -> None:
    description = get(client, "/api/v1/openapi.json")
    served = {route.path for route in api.router.routes if isinstance(route, APIRoute) and route.include_in_schema}
    assert set(description["paths"]) == served | {"/health", "/health/live", "/metrics"}
    for path in served:
        responses = description["paths"][path]["get"]["responses"]
        assert responses["200"]["content"]["application/json"]["schema"] != {}, path
        assert description["paths"][path]["get"]["summary"]
        problems = {status: one["content"] for status, one in responses.items() if status != "200"}
        assert problems
        assert all(content["application/problem+json"]["schema"]["properties"] for content in problems.values())
    page = client.get("/api").text
    assert all(path in page for path in description["paths"])


def test_metrics_in_base_units(client: TestClient, clinic: Clinic) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["dicomnode_jobs", "done"] == 1
    assert samples["dicomnode_jobs", "queued"] == 0
    assert samples["dicomnode_instances_received_total",] == 40
    assert samples["dicomnode_disk_room_bytes",] == pytest.approx(clinic.archive.room_bytes, rel=0.1)
    assert samples["dicomnode_sign_of_life_age_seconds", "here:1", "worker"] == 20
    assert samples["dicomnode_check_ok", "worker"] == 1
    assert samples["dicomnode_check_ok", "receiver"] == 0
    assert samples["dicomnode_analyses_last_day",] == 1
    assert samples["dicomnode_alarms", "disk"] == 0
    assert "P-4711" not in answer.text


def test_the_age_of_what_waits(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path)
    clinic.receive()
    clinic.now += timedelta(minutes=2)
    text = TestClient(clinic.app(), base_url="http://localhost").get("/metrics").text
    assert "dicomnode_job_oldest_due_age_seconds 120.0" in text
    assert "dicomnode_delivery_oldest_pending_age_seconds 0.0" in text

"""The dashboard: that each page says what is so, what to do about it, and does what a person asks for."""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dicomnode.arrivals import Patient
from dicomnode.deliveries import DeliveryEvent, Outcome
from dicomnode.jobs import JobEvent, JobState
from dicomnode.pulling import FoundSeries, PullEvent
from dicomnode.store import outbox, presence, pulls, queue, watch
from dicomnode.store.watch import AlarmKind, Refusal
from dicomnode.web import advice
from tests.audit_messages import kind, read_messages
from tests.clinic import Clinic
from tests.house import House
from tests.patients import add_five_studies

PAGES = ("/", "/jobs", "/deliveries", "/pulls", "/refusals", "/api", "/patients")
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "P-4711", "SeriesDescription": "Abdomen <b>portal</b>"}


class Text(HTMLParser):
    """What a person reads of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def read(client: TestClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    text = Text()
    text.feed(answer.text)
    return " ".join(text.words)


def visit(clinic: Clinic) -> TestClient:
    return TestClient(clinic.app(), base_url="http://localhost", follow_redirects=False)


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path, destinations=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}])


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_an_empty_node_shows_every_page(clinic: Clinic) -> None:
    client = visit(clinic)
    for path in PAGES:
        assert "Research software" in read(client, path)
    assert "No series is arriving" in read(client, "/")


def test_every_page_of_either_database(either_url: str, tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, database={"url": either_url})
    job_id = clinic.measure(attributes=PATIENT)
    clinic.receive(seed="another")
    with clinic.database.begin() as connection:
        for _ in range(2):
            presence.show(connection, ["worker", "web"], "here:1", clinic.now)
    client = visit(clinic)
    lists = [
        f"/api/v1/{name}" for name in ("overview", "jobs", "deliveries", "pulls", "refusals", "alarms", "patients")
    ]
    of_the_job = [f"/jobs/{job_id}", f"/patients/{job_id}", f"/api/v1/jobs/{job_id}"]
    for path in (*PAGES, "/jobs?state=done&text=ABDOMEN", "/metrics", *lists, *of_the_job):
        assert client.get(path).status_code == 200, path
    assert client.post(f"/jobs/{job_id}/requeue", data={"by": "Dr. Example"}).status_code == 303
    clinic.database.close()


def test_every_state_and_alarm_that_needs_a_person_has_a_next_step() -> None:
    for kind_of_alarm in AlarmKind:
        assert advice.on_alarm(kind_of_alarm) != advice.on_alarm("unknown"), kind_of_alarm
    for state in (JobState.SKIPPED, JobState.REFUSED, JobState.FAILED):
        assert advice.on_job(state)
    assert advice.on_delivery("parked")
    assert advice.on_delivery("failed")


def test_the_overview_says_what_is_arriving_queued_and_running(clinic: Clinic) -> None:
    job_id = clinic.receive(attributes=PATIENT)
    client = visit(clinic)
    assert "Abdomen <b>portal</b>" in read(client, "/")
    with clinic.database.begin() as connection:
        held = queue.claim(connection, "me", clinic.now, 60)
        assert held
        queue.renew(connection, held.id, "me", clinic.now + timedelta(seconds=60), 0.42)
    assert 'value="42"' in client.get("/").text
    assert 'value="42"' in client.get(f"/jobs/{job_id}").text
    with clinic.database.begin() as connection:
        queue.refuse(connection, held, "a slice is missing", clinic.now)
    assert client.get(f"/api/v1/jobs/{job_id}").json()["job"]["progress"] is None
    text = read(client, "/")
    assert "a slice is missing" in text
    assert advice.on_job("refused") in text


def test_what_rules_found_in_archives_is_listed_with_what_became_of_it(clinic: Clinic) -> None:
    client = visit(clinic)
    assert "There are no rules that pull" in read(client, "/pulls")
    with clinic.database.begin() as connection:
        for number in (1, 2):
            found = FoundSeries("1.1", f"1.2.840.{number}", "CT", "portal", "1", 300)
            pulls.want(connection, "vna", "every night", found, clinic.now)
        later = clinic.now + timedelta(hours=1)
        wanted = pulls.begin(connection, "vna", clinic.now, later)
        assert wanted
        pulls.settle(connection, wanted, PullEvent.GIVE_UP, "the archive is away", clinic.now, not_before=later)
    text = read(client, "/pulls")
    assert all(word in text for word in ("1.2.840.1", "1.2.840.2", "every night", "300", "the archive is away"))
    assert "1.2.840.2" not in read(client, "/pulls?state=failed")
    assert [one["state"] for one in client.get("/api/v1/pulls?state=failed").json()] == ["failed"]


def test_alarms_and_refusals_are_told_with_the_next_step(clinic: Clinic) -> None:
    with clinic.database.begin() as connection:
        watch.raise_alarm(connection, AlarmKind.DELIVERY, "pacs", "2 deliveries are parked", clinic.now)
        watch.record_refusal(connection, Refusal(clinic.now, "caller", "<STRANGER>", "10.1.2.3", "", "not allowed"))
    client = visit(clinic)
    assert "2 deliveries are parked" in read(client, "/")
    assert advice.on_alarm("delivery") in read(client, "/")
    assert "<STRANGER> 10.1.2.3 not allowed" in read(client, "/refusals")


def test_a_node_without_a_sign_of_life_is_told(clinic: Clinic) -> None:
    with clinic.database.begin() as connection:
        for actor in ("receiver", "assembler", "worker", "courier", "housekeeper"):
            presence.show(connection, [actor], f"here:{actor}", clinic.now)
    client = visit(clinic)
    assert client.get("/health").status_code == 200
    clinic.now += timedelta(seconds=40)
    with clinic.database.begin() as connection:
        presence.show(connection, ["worker"], "here:worker", clinic.now)
        presence.leave(connection, "here:courier")
    clinic.now += timedelta(seconds=10)
    answer = client.get("/health")
    assert answer.status_code == 503
    wrong = {check["name"]: check["detail"] for check in answer.json()["checks"] if not check["ok"]}
    assert set(wrong) == {"receiver", "assembler", "courier", "housekeeper"}
    assert wrong["courier"] == "does not run"
    assert wrong["receiver"].startswith("no sign of life since 2026-01-02 03:04:05 UTC (here:receiver)")
    assert "no sign of life" in read(client, "/")


def test_a_process_that_died_is_forgotten_when_another_on_its_host_took_its_place(clinic: Clinic) -> None:
    with clinic.database.begin() as connection:
        for process in ("here:1", "there:1"):
            presence.show(connection, ["worker"], process, clinic.now)
        presence.show(connection, ["web"], "here:2", clinic.now)
        clinic.now += timedelta(minutes=2)
        presence.show(connection, ["worker"], "here:3", clinic.now)
        found = {(sign.actor, sign.process) for sign in presence.signs(connection)}
        assert found == {("web", "here:2"), ("worker", "there:1"), ("worker", "here:3")}


def test_a_queue_that_stands_still_is_not_healthy(clinic: Clinic) -> None:
    clinic.receive()
    clinic.now += timedelta(minutes=16)
    checks = {check["name"]: check for check in visit(clinic).get("/health").json()["checks"]}
    assert checks["queue"] == {"name": "queue", "ok": False, "detail": "a job waits for 16 minutes and none is at work"}


def test_a_job_is_shown_with_its_patient_result_deliveries_and_timeline(clinic: Clinic) -> None:
    job_id = clinic.measure(attributes=PATIENT)
    client = visit(clinic)
    text = read(client, f"/jobs/{job_id}")
    for shown in ("Doe^Jane", "P-4711", "Abdomen <b>portal</b>", "mL", "create", "claim", "finish", "SEG", "SR"):
        assert shown in text, shown
    assert kind(read_messages(clinic.settings.audit_folder)[-1]) == "DICOM Instances Accessed"
    for path in ("/", "/jobs"):
        assert "P-4711" not in client.get(path).text
        assert "Jane" not in client.get(path).text


def test_a_look_at_a_patient_is_recorded_once_in_a_while(clinic: Clinic) -> None:
    job_id = clinic.receive(attributes=PATIENT)
    client = visit(clinic)
    for _ in range(3):
        client.get(f"/jobs/{job_id}", headers={"X-Live": "1"})
    clinic.now += timedelta(minutes=11)
    client.get(f"/api/v1/jobs/{job_id}")
    messages = read_messages(clinic.settings.audit_folder)
    assert [kind(message) for message in messages] == ["DICOM Instances Accessed"] * 2
    person, node = messages[0].findall("ActiveParticipant")
    assert (person.get("UserID"), person.get("UserIsRequestor")) == ("unidentified", "true")
    assert person.get("NetworkAccessPointID") == "testclient"
    assert node.get("UserIsRequestor") == "false"
    assert "P-4711" in [
        one.get("ParticipantObjectID") for one in messages[0].findall("ParticipantObjectIdentification")
    ]


def test_jobs_are_filtered_and_paged(clinic: Clinic) -> None:
    for number in range(3):
        clinic.receive(seed=str(number), attributes={"SeriesDescription": f"series {number}"})
    client = visit(clinic)
    assert "series 1" in read(client, "/jobs?text=SERIES 1")
    assert "series 2" not in read(client, "/jobs?text=series 1")
    assert "No job fits" in read(client, "/jobs?state=failed")
    assert "No job fits" in read(client, "/jobs?text=%25")
    older = read(client, "/jobs?before=2")
    assert "series 0" in older
    assert "series 1" not in older
    assert client.get("/jobs?state=nonsense").status_code == 422
    assert client.get("/jobs/99").status_code == 404


def test_lists_do_not_hide_that_a_volume_is_a_lower_bound_or_invalid(clinic: Clinic) -> None:
    with clinic.database.begin() as connection:
        add_five_studies(connection, Patient("P-5", ""))
    for path in ("/", "/jobs"):
        text = read(visit(clinic), path)
        assert "at least 50.0 mL" in text
        assert "20.0 mL invalid" in text
        assert text.count("at least") == text.count("invalid") == 1


def test_a_job_is_requeued_by_name(clinic: Clinic) -> None:
    job_id = clinic.measure()
    client = visit(clinic)
    assert "Requeue" in read(client, f"/jobs/{job_id}")
    assert client.post(f"/jobs/{job_id}/requeue").status_code == 422
    assert client.post(f"/jobs/{job_id}/requeue", data={"by": " "}).status_code == 422
    answer = client.post(f"/jobs/{job_id}/requeue", data={"by": "Dr.  Example"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job_id}")
    with clinic.database.read() as connection:
        assert queue.job(connection, job_id).state is JobState.QUEUED
        last = queue.timeline(connection, job_id)[-1]
    assert (last.event, last.note) == (JobEvent.REQUEUE, "by Dr. Example")
    again = client.post(f"/jobs/{job_id}/requeue", data={"by": "Dr. Example"})
    assert again.status_code == 409
    assert "requeue is not possible in state queued" in again.text


def test_a_result_is_marked_invalid_and_restored_by_name_and_with_a_reason(clinic: Clinic) -> None:
    job_id = clinic.measure(attributes=PATIENT)
    client = visit(clinic)
    act = {"by": "Dr. Example", "reason": "the outline is on the stomach"}
    assert client.post(f"/jobs/{job_id}/restore", data=act).status_code == 409
    assert client.post(f"/jobs/{job_id}/invalidate", data={"by": "Dr. Example", "reason": " "}).status_code == 422
    assert client.post(f"/jobs/{job_id}/invalidate", data=act).status_code == 303
    text = read(client, f"/jobs/{job_id}")
    assert "Invalid: the outline is on the stomach (Dr. Example" in text
    assert "Let the result count again" in text
    assert client.post(f"/jobs/{job_id}/restore", data=act).status_code == 303
    assert "Invalid" not in read(client, f"/jobs/{job_id}")
    messages = read_messages(clinic.settings.audit_folder)
    updates = [one for one in messages if one.find("EventIdentification").get("EventActionCode") == "U"]
    assert len(updates) == 2
    assert "Dr. Example" in {person.get("UserID") for person in updates[0].findall("ActiveParticipant")}


def test_a_delivery_is_retried_by_name(house: House, tmp_path: Path) -> None:
    house.receive(0, 1, 2)
    job_id = house.add_job()
    house.finish("pacs")
    house.settle("pacs", Outcome(DeliveryEvent.REJECT, "0xC000 refused by the archive"))
    clinic = Clinic(tmp_path)
    client = visit(clinic)
    text = read(client, "/deliveries?state=failed&destination=pacs")
    assert "0xC000 refused by the archive" in text
    assert advice.on_delivery("failed") in text
    assert "1 deliveries stuck" in read(client, "/")
    assert "No delivery fits" in read(client, "/deliveries?state=parked")
    assert client.post("/deliveries/1/retry", data={"by": "Dr. Example"}).status_code == 303
    assert client.post("/deliveries/9/retry", data={"by": "Dr. Example"}).status_code == 404
    with house.database.read() as connection:
        assert [one.state for one in outbox.list_deliveries(connection, 9)] == ["pending"]
        assert queue.timeline(connection, job_id)[-1].note == "by Dr. Example"


def test_a_database_that_is_away_is_told(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomnode.database import Database
    from dicomnode.errors import Unavailable

    client = visit(clinic)

    def away(_: Database) -> None:
        raise Unavailable("database: disk I/O error")

    monkeypatch.setattr(Database, "read", away)
    assert client.get("/").status_code == 503
    assert "disk I/O error" in client.get("/jobs").text
    assert client.get("/api/v1/jobs").json()["detail"] == "database: disk I/O error"
    assert client.get("/health").status_code == 503
    assert 'dicomnode_check_ok{check="database"} 0.0' in client.get("/metrics").text

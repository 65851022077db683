"""The statements on a real SQLite file: claims, leases, revisions, the outbox."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError

from dicomnode import migrations
from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.database import Connection, Database, open_database
from dicomnode.deliveries import DeliveryEvent, Outcome
from dicomnode.errors import Misconfigured
from dicomnode.history import Standing
from dicomnode.jobs import Job, JobEvent, JobState, RetryPolicy
from dicomnode.lifecycle import Backoff, IllegalMove
from dicomnode.store import LeaseLost, Unknown, history, outbox, queue, receiving
from dicomnode.tables import deliveries, jobs
from tests.volumes import counting

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LEASE_S = 60.0
EXPLICIT = "1.2.840.10008.1.2.1"
LATER = NOW + timedelta(seconds=LEASE_S + 1)
POLICY = RetryPolicy(max_attempts=2, backoff=Backoff(0.0, 0.0))
SEG, SR = (outbox.StoredResult("1.2.840", f"2.25.{n}", f"2.25.10{n}", f"results/{n}.dcm", "a" * 64) for n in (1, 2))


@pytest.fixture
def database(either_database: Database) -> Database:
    return either_database


def receive(connection: Connection, number: int, series: str = "1.1", patient: Patient | None = None) -> bool:
    patient = patient or Patient("P", "")
    head = (f"1.2.{number}", "1.2.840.10008.5.1.4.1.1.2", EXPLICIT, series, "1.0", patient, "CT")
    tail = ("AXIAL", "1\\0\\0\\0\\1\\0", "20200102", f"received/{number}.dcm", 10, "b" * 64, "SENDER", NOW)
    return receiving.remember(connection, StoredInstance(*head, *tail))


def add_jobs(connection: Connection, skip_reason: str = "") -> list[int]:
    return [queue.add_job(connection, arrival, skip_reason, NOW) for arrival in receiving.arrivals(connection)]


def make_jobs(database: Database, count: int = 1) -> list[int]:
    with database.begin() as connection:
        for number in range(count):
            receive(connection, number, f"1.1.{number}")
        return add_jobs(connection)


def claim(database: Database, now: datetime = NOW, holder: str = "A") -> Job:
    with database.begin() as connection:
        held = queue.claim(connection, holder, now, LEASE_S)
    assert held is not None
    return held


def finish(database: Database, held: Job, volume_ml: float = 80.0, found: bool = True) -> None:
    measured = outbox.Measured(found, volume_ml, 0.9, ("touches-border",), "m", "1", "0" * 64)
    with database.begin() as connection:
        outbox.finish(connection, held, outbox.Finished(measured, ["no Study ID"], [SEG, SR], ["near", "far"]), NOW)


def test_an_instance_is_indexed_once(database: Database) -> None:
    with database.begin() as connection:
        assert [receive(connection, 1), receive(connection, 1), receive(connection, 2)] == [True, False, True]
        assert receiving.find(connection, "1.2.1") == receiving.KnownInstance(
            "1.1", "b" * 64, EXPLICIT, "received/1.dcm", False
        )
        assert receiving.find(connection, "1.2.9") is None
        assert [image.path for image in receiving.images(connection, "1.1", 99)] == ["received/1.dcm", "received/2.dcm"]


def test_a_skipped_series_says_why(database: Database) -> None:
    with database.begin() as connection:
        receive(connection, 1)
        (job_id,) = add_jobs(connection, "modality is MR, not CT")
        assert receiving.arrivals(connection) == []
        assert queue.job(connection, job_id).state is JobState.SKIPPED
        assert queue.timeline(connection, job_id)[0].note == "modality is MR, not CT"
        assert queue.claim(connection, "A", NOW, LEASE_S) is None


def test_case_29_two_workers_never_get_the_same_job(database: Database) -> None:
    expected = make_jobs(database, 20)

    def work(holder: str) -> list[int]:
        claimed = []
        while True:
            with database.begin() as connection:
                held = queue.claim(connection, holder, NOW, LEASE_S)
            if held is None:
                return claimed
            claimed.append(held.id)

    with ThreadPoolExecutor(2) as pool:
        claimed = Counter(job_id for part in pool.map(work, ["A", "B"]) for job_id in part)
    assert claimed == Counter(expected)


def test_case_29_a_write_waits_for_another_instead_of_failing(database: Database) -> None:
    def receive_many(first: int) -> None:
        for number in range(first, first + 15):
            with database.begin() as connection:
                receive(connection, number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(receive_many, [0, 100, 200, 300]))
    with database.read() as connection:
        assert len(receiving.stored_paths(connection)) == 60


def test_case_28_an_outrun_lease_gives_the_job_back_then_fails_it(database: Database) -> None:
    (job_id,) = make_jobs(database)
    for attempt, after in ((1, JobState.QUEUED), (2, JobState.FAILED)):
        assert claim(database).attempts == attempt
        with database.begin() as connection:
            assert queue.expire(connection, POLICY, NOW + timedelta(seconds=LEASE_S - 1)) == 0
            assert queue.expire(connection, POLICY, LATER) == 1
            assert queue.job(connection, job_id).state is after
            connection.execute(jobs.update().values(not_before=NOW))
    with database.read() as connection:
        failed = queue.job(connection, job_id)
        assert failed.reason == "the worker gave no sign of life; given up after 2 attempts"
        events = [entry.event for entry in queue.timeline(connection, job_id)]
    assert events == ["create", "claim", "expire", "claim", "give-up"]


def test_a_renewed_lease_lasts_and_a_lost_one_is_noticed(database: Database) -> None:
    (job_id,) = make_jobs(database)
    claim(database)
    with database.begin() as connection:
        assert queue.renew(connection, job_id, "A", LATER + timedelta(seconds=LEASE_S))
        assert not queue.renew(connection, job_id, "B", LATER)
        assert queue.expire(connection, POLICY, LATER) == 0
        queue.check_lease(connection, job_id, "A")
        with pytest.raises(LeaseLost):
            queue.check_lease(connection, job_id, "B")


def test_a_job_waits_until_it_is_due(database: Database) -> None:
    make_jobs(database)
    with database.begin() as connection:
        connection.execute(jobs.update().values(not_before=LATER))
        assert not queue.is_any_due(connection, NOW)
        assert queue.claim(connection, "A", NOW, LEASE_S) is None
        assert queue.is_any_due(connection, LATER)
        assert queue.claim(connection, "A", LATER, LEASE_S)


def test_done_and_the_deliveries_are_written_together_or_not_at_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = make_jobs(database)
    held = claim(database)

    def fail(*_: object) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_put_delivery", fail)
        with pytest.raises(RuntimeError):
            finish(database, held)
    with database.read() as connection:
        assert queue.job(connection, job_id).state is JobState.RUNNING
        assert history.points(connection, Patient("P", "")) == []
    finish(database, held)
    with database.read() as connection:
        done = queue.job(connection, job_id)
        assert (done.state, done.reason) == (JobState.DONE, "80.0 mL (touches-border)")
        assert [(entry.event, entry.note) for entry in queue.timeline(connection, job_id)][-2:] == [
            ("assume", "no Study ID"),
            ("finish", "80.0 mL (touches-border)"),
        ]
        assert outbox.delivery_states(connection, [job_id]) == {job_id: {"pending": 4}}


def test_a_rerun_sends_the_same_objects_again(database: Database) -> None:
    (job_id,) = make_jobs(database)
    finish(database, claim(database))
    with database.begin() as connection:
        for delivery in outbox.claim(connection, "near", NOW, LEASE_S):
            outbox.settle(connection, delivery.id, Outcome(DeliveryEvent.ACCEPT, "0x0000 success"), NOW)
        assert outbox.delivery_states(connection, [job_id]) == {job_id: {"pending": 2, "sent": 2}}
        assert queue.requeue(connection, job_id, NOW).attempts == 0
        with pytest.raises(IllegalMove):
            queue.requeue(connection, job_id, NOW)
        with pytest.raises(Unknown):
            queue.requeue(connection, 999, NOW)
    finish(database, claim(database), 81.0)
    with database.read() as connection:
        assert outbox.delivery_states(connection, [job_id]) == {job_id: {"pending": 4}}
        assert [point.volume_ml for point in counting(connection, "P")] == [81.0]


def test_deliveries_are_claimed_under_a_lease(database: Database) -> None:
    make_jobs(database)
    finish(database, claim(database))
    with database.begin() as connection:
        assert [d.sop_instance_uid for d in outbox.claim(connection, "near", NOW, LEASE_S)] == ["2.25.1", "2.25.2"]
        assert outbox.claim(connection, "near", NOW, LEASE_S) == []
        assert len(outbox.claim(connection, "far", NOW, LEASE_S)) == 2
        assert not outbox.is_any_due(connection, "near", NOW)
        assert outbox.is_any_due(connection, "near", LATER)
        assert [outbox.expire(connection, "near", now) for now in (NOW, LATER)] == [0, 2]
        assert [d.attempts for d in outbox.claim(connection, "near", LATER, LEASE_S)] == [2, 2]
        with pytest.raises(IllegalMove):
            outbox.settle(connection, _any_delivery(connection), Outcome(DeliveryEvent.CLAIM, ""), NOW)


def _any_delivery(connection: Connection) -> int:
    return int(connection.execute(deliveries.select()).first().id)


def grow(database: Database, number: int) -> int:
    """One more instance of the series 1.1, and the revision of it."""
    with database.begin() as connection:
        receive(connection, number)
        (job_id,) = add_jobs(connection)
        outbox.cancel_superseded(connection, "1.1", NOW)
    return job_id


def test_case_08_late_slices_make_a_revision_and_one_current_volume(database: Database) -> None:
    for number, volume_ml in ((1, 40.0), (2, 80.0)):
        job_id = grow(database, number)
        with database.read() as connection:
            made = queue.job(connection, job_id)
        assert (made.revision, made.instance_count) == (number, number)
        finish(database, claim(database), volume_ml)
    with database.read() as connection:
        assert queue.job(connection, 1).state is JobState.SUPERSEDED
        assert [point.volume_ml for point in counting(connection, "P")] == [80.0]
        every = history.points(connection, Patient("P", ""))
    assert [(point.volume_ml, point.superseded) for point in every] == [(40.0, True), (80.0, False)]


@pytest.mark.parametrize("event", [JobEvent.REFUSE, JobEvent.GIVE_UP, None])
def test_case_08_a_part_counts_no_longer_once_more_came(database: Database, event: JobEvent | None) -> None:
    grow(database, 1)
    finish(database, claim(database), 40.0)
    grow(database, 2)
    with database.begin() as connection:
        if event:
            held = queue.claim(connection, "A", NOW, LEASE_S)
            assert held
            queue.move_job(connection, held, event, (NOW, "a gap"), {})
        assert counting(connection, "P") == []
        assert [point.superseded for point in history.points(connection, Patient("P", ""))] == [True]
        with pytest.raises(IllegalMove, match="requeue job 2"):
            queue.requeue(connection, 1, NOW)


def test_case_08_what_was_not_sent_of_the_earlier_revision_never_is(database: Database) -> None:
    first = grow(database, 1)
    finish(database, claim(database))
    with database.begin() as connection:
        near = outbox.claim(connection, "near", NOW, LEASE_S)  # these are on their way when the late slice comes
    second = grow(database, 2)
    with database.begin() as connection:
        assert outbox.delivery_states(connection, [first]) == {first: {"cancelled": 2, "sending": 2}}
        outbox.settle(connection, near[0].id, Outcome(DeliveryEvent.ACCEPT, "0x0000 success"), NOW)
        outbox.settle(connection, near[1].id, Outcome(DeliveryEvent.POSTPONE, "away"), NOW)
        assert outbox.claim(connection, "near", NOW, LEASE_S) == []
        assert outbox.delivery_states(connection, [first]) == {first: {"cancelled": 3, "sent": 1}}
        assert [queue.job(connection, key).state for key in (first, second)] == [JobState.SUPERSEDED, JobState.QUEUED]


def test_case_08_an_earlier_revision_that_ends_last_leaves_nothing(database: Database) -> None:
    first = grow(database, 1)
    held = claim(database)
    grow(database, 2)
    later = claim(database, holder="B")
    finish(database, later, 80.0)
    with database.begin() as connection:
        assert not queue.renew(connection, first, "A", LATER)
        with pytest.raises(LeaseLost):
            queue.check_lease(connection, first, "A")
    with pytest.raises(IllegalMove):
        finish(database, held, 40.0)
    with database.read() as connection:
        assert [point.volume_ml for point in counting(connection, "P")] == [80.0]
        assert list(outbox.delivery_states(connection, [first, later.id])) == [later.id]


def test_case_08_a_revision_that_is_not_analysed_leaves_the_earlier_standing(database: Database) -> None:
    first = grow(database, 1)
    finish(database, claim(database), 40.0)
    with database.begin() as connection:
        receive(connection, 2)
        (second,) = add_jobs(connection, "no rule matches")
        assert [point.revision for point in counting(connection, "P")] == [1]
        with pytest.raises(IllegalMove):
            queue.requeue(connection, first, NOW)
        queue.requeue(connection, second, NOW)  # an operator wants it all the same
        assert queue.job(connection, first).state is JobState.SUPERSEDED


def test_case_08_of_what_the_first_release_left_the_newest_revision_counts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/node.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO series VALUES ('1.1', '1', 'P', '', '', 3, 0)"))
        for revision, state in ((1, "done"), (2, "done"), (3, "skipped")):
            values = f"'1.1', {revision}, '{state}', '', 1, {revision}, 1, '2026-01-02', '2026-01-02', '2026-01-02'"
            names = "series_instance_uid, revision, state, reason, attempts, last_instance_id, instance_count"
            times = "created_at, updated_at, not_before"
            connection.execute(text(f"INSERT INTO jobs ({names}, {times}) VALUES ({values})"))
    engine.dispose()
    opened = open_database(url)
    with opened.read() as connection:
        states = list(connection.scalars(select(jobs.c.state).order_by(jobs.c.id)))
    opened.close()
    assert states == [JobState.SUPERSEDED, JobState.DONE, JobState.SKIPPED]


def test_case_08_the_database_itself_holds_one_job_of_a_series_that_counts(database: Database) -> None:
    grow(database, 1)
    grow(database, 2)
    with pytest.raises(IntegrityError), database.begin() as connection:
        connection.execute(jobs.update().values(state=JobState.DONE))


def test_case_08_a_revision_that_still_waits_is_superseded_by_the_later(database: Database) -> None:
    (first,) = make_jobs(database)
    claim(database)
    with database.begin() as connection:  # the first has to wait for its next attempt; meanwhile late slices come
        queue.put_back(connection, queue.job(connection, first), (JobEvent.POSTPONE, "away"), POLICY, NOW)
        receive(connection, 7, "1.1.0")
        (second,) = add_jobs(connection)
    assert claim(database, LATER).id == second
    with database.read() as connection:
        old = queue.job(connection, first)
        assert (old.state, old.reason) == (
            JobState.SUPERSEDED,
            "superseded by revision 2, which knows later instances; was queued: away",
        )


def test_case_07_a_series_sent_again_makes_no_job(database: Database) -> None:
    with database.begin() as connection:
        receive(connection, 1)
        add_jobs(connection)
        assert not receive(connection, 1)
        assert receiving.arrivals(connection) == []


def test_case_23_nothing_found_is_no_point_in_the_history(database: Database) -> None:
    (job_id,) = make_jobs(database)
    finish(database, claim(database), 0.0, found=False)
    with database.read() as connection:
        (point,) = history.points(connection, Patient("P", ""))
        assert (point.volume_ml, point.standing) == (None, Standing.NOT_FOUND)
        assert queue.job(connection, job_id).reason == "nothing found"


def test_case_22_the_same_patient_id_of_two_issuers_is_two_patients(database: Database) -> None:
    with database.begin() as connection:
        for number, issuer in enumerate(("NORTH", "SOUTH")):
            receive(connection, number, f"1.1.{number}", Patient("P", issuer))
        add_jobs(connection)
    for _ in range(2):
        finish(database, claim(database))
    with database.read() as connection:
        assert [p.series_instance_uid for p in counting(connection, "P", "SOUTH")] == ["1.1.1"]
        assert history.issuers(connection, "P") == ["NORTH", "SOUTH"]


def test_a_naive_time_is_not_stored(database: Database) -> None:
    with pytest.raises(Exception, match="naive time"), database.begin() as connection:
        connection.execute(jobs.update().values(not_before=NOW.replace(tzinfo=None)))


@pytest.mark.parametrize("url", ["nonsense", "nosuch://x", "sqlite:////proc/nowhere/node.db"])
def test_a_database_that_cannot_be_opened_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"database\.url"):
        open_database(url)

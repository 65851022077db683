"""Retention, the alarms of disk and certificate: real files, a real database, a clock that only the test moves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from dicomnode.archive import Archive
from dicomnode.deliveries import DeliveryEvent, Outcome
from dicomnode.dimse.security import expires_at
from dicomnode.errors import Refused
from dicomnode.housekeeper import Household, Housekeeper
from dicomnode.jobs import JobEvent, JobState, RetryPolicy
from dicomnode.lifecycle import Backoff
from dicomnode.receiver import COERCION, DUPLICATE_DIFFERS, Receiver, Unacceptable
from dicomnode.retention import RetentionRule
from dicomnode.store import outbox, queue, receiving, retention
from tests.certificates import make_identity
from tests.house import ACCEPT, START, House
from tests.phantom import PhantomOptions, write_series
from tests.volumes import counting

ONCE = RetryPolicy(1, Backoff(0.0, 0.0))
CONFIRM = Outcome(DeliveryEvent.CONFIRM, "")


@pytest.fixture
def house(tmp_path: Path, either_url: str) -> Iterator[House]:
    house = House(tmp_path, either_url)
    yield house
    house.database.close()


@pytest.fixture
def done(house: House) -> House:
    """A house with a series that was measured and delivered."""
    house.deliver()
    return house


def test_an_old_series_goes_with_its_results_and_its_rows_stay(done: House) -> None:
    assert done.keep(days=29) == 0
    assert done.keep(days=2) == 4
    assert (done.files("received"), done.files("results")) == (0, 0)
    with done.database.read() as connection:
        patient = str(pydicom.dcmread(done.slices[0]).PatientID)
        assert [point.volume_ml for point in counting(connection, patient)] == [80.0]
        moves = [(entry.event, entry.note) for entry in queue.timeline(connection, 1)]
    assert moves[-2:] == [("remove", "3 received files, by retention"), ("remove", "1 results files, by retention")]
    assert done.keep() == 0


def test_by_default_nothing_is_ever_removed(done: House) -> None:
    assert done.keep(days=9999, received_days=None) == 0
    assert (done.files("received"), done.files("results")) == (3, 1)


def test_above_the_quota_received_files_go_but_results_stay(done: House) -> None:
    assert done.keep(days=0.9, quota_bytes=1) == 0
    assert done.keep(days=0.2, quota_bytes=1) == 3
    assert done.files("results") == 1


def test_a_series_without_a_job_stays(house: House) -> None:
    house.receive(0, 1, 2)
    assert house.keep(days=99) == 0
    house.add_job()
    assert house.keep(days=99) == 0
    with house.database.begin() as connection:
        held = queue.claim(connection, "A", house.now, 60)
    assert held
    assert house.keep(days=99) == 0
    with house.database.begin() as connection:
        queue.put_back(connection, held, (JobEvent.POSTPONE, "away"), ONCE, house.now)
        assert queue.job(connection, held.id).state is JobState.FAILED
    assert house.keep(days=99) == 0
    assert house.files("received") == 3


def test_what_is_not_delivered_stays(house: House) -> None:
    house.receive(0, 1, 2)
    house.add_job()
    house.finish("near", "far")
    house.settle("near", ACCEPT)
    assert house.keep(days=99) == 0
    house.settle("far", Outcome(DeliveryEvent.REJECT, "0x0122"))
    assert house.keep(days=99) == 0
    assert (house.files("received"), house.files("results")) == (3, 1)


def test_what_is_not_confirmed_stays_where_the_destination_promises_it(done: House) -> None:
    assert done.keep(days=99, promising=("pacs",)) == 0
    with done.database.begin() as connection:
        outbox.settle(connection, 1, CONFIRM, done.now)
    assert done.keep(promising=("pacs",)) == 4


def test_a_result_that_was_to_go_nowhere_stays(house: House) -> None:
    house.receive(0, 1, 2)
    house.add_job()
    house.finish()
    assert house.keep(days=99) == 3
    assert house.files("results") == 1


def test_a_series_that_waits_again_stays_whole(done: House) -> None:
    slice_four = done.folder / "late"
    slice_four.mkdir()
    changes = {"SeriesInstanceUID": done.uid}
    late = write_series(slice_four, PhantomOptions(shape=(1, 4, 4), seed="late", attributes=changes))
    done.receiver.store(late[0].read_bytes(), "SENDER")
    assert done.keep(days=99) == 0
    assert done.files("received") == 4


def test_case_01_an_instance_that_comes_again_after_its_removal_is_stored_again(done: House) -> None:
    done.keep(days=99)
    done.receive(0, 1)
    assert done.files("received") == 2
    done.receiver.repair()
    assert done.files("received") == 2
    assert done.keep(days=29) == 0  # its time begins anew
    assert done.keep(days=2) == 2


def test_case_01_a_lost_file_is_written_again_when_its_instance_comes_again(done: House) -> None:
    for path in (done.folder / "archive" / "received").rglob("*.dcm"):
        path.unlink()
    done.receive(0)
    assert done.files("received") == 1


def test_case_06_other_content_under_the_uid_of_a_removed_instance_is_refused_even_where_others_are_warned(
    done: House,
) -> None:
    done.keep(days=99)
    other = pydicom.dcmread(done.slices[0])
    other.PatientID = "ANOTHER"
    buffer = BytesIO()
    other.save_as(buffer, enforce_file_format=True)
    receiver = Receiver(done.database, done.archive, lambda: done.now, conflict_status=COERCION)
    with pytest.raises(Unacceptable) as refused:
        receiver.store(buffer.getvalue(), "SENDER")
    assert refused.value.status == DUPLICATE_DIFFERS
    assert done.files("received") == 0


def test_case_07_a_removed_series_that_comes_again_is_not_measured_again(done: House) -> None:
    done.keep(days=99)
    done.receive(0, 1, 2)
    with done.database.read() as connection:
        assert receiving.arrivals(connection) == []


def test_a_job_whose_files_are_removed_is_not_requeued(done: House) -> None:
    done.keep(days=99)
    with pytest.raises(Refused, match="3 of its images were removed"), done.database.begin() as connection:
        queue.requeue(connection, 1, done.now)
    with pytest.raises(Refused, match="removed by retention"), done.database.begin() as connection:
        outbox.requeue(connection, 1, "by an operator", done.now)
    done.receive(0, 1, 2)
    with done.database.begin() as connection:
        assert queue.requeue(connection, 1, done.now).state is JobState.QUEUED


def test_a_result_that_is_made_again_is_there_again(done: House) -> None:
    done.keep(days=99, results_days=30)
    with done.database.begin() as connection:
        queue.requeue(connection, 1, done.now)
    done.finish("pacs")
    assert done.keep() == 0
    done.settle("pacs", ACCEPT)
    assert done.files("results") == 1


def test_case_01_after_a_crash_between_row_and_file_the_file_goes(done: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "discard", die)
        with pytest.raises(KeyboardInterrupt):
            done.keep(days=99)
    assert done.files("received") == 3
    done.receiver.repair()
    with done.database.read() as connection:
        assert retention.is_any_condemned(connection)
    assert done.keep(received_days=None) == 4
    assert (done.files("received"), done.files("results")) == (0, 0)


def test_case_01_after_a_crash_between_files_and_commit_all_is_consistent(
    done: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retention, "forget", die)
        with pytest.raises(KeyboardInterrupt):
            done.keep(days=99)
    done.receive(0)  # before the housekeeper looked again
    assert done.keep(received_days=None) == 3
    assert done.files("received") == 1


def test_case_01_a_crash_while_a_removed_instance_comes_again_leaves_nothing_half(
    done: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    done.keep(days=99)
    keep = Archive.keep

    def die(archive: Archive, relative: str, content: bytes) -> None:
        keep(archive, relative, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "keep", die)
        with pytest.raises(KeyboardInterrupt):
            done.receive(0)
    done.receiver.repair()  # it was not acknowledged
    assert done.files("received") == 0
    done.receive(0)
    assert done.files("received") == 1


def test_case_02_the_alarm_of_the_disk_comes_and_goes_by_itself(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "_check_reserve", Archive(house.folder / "archive", 1 << 62)._check_reserve)
        for _ in range(3):
            house.keep()
    (alarm,) = house.alarms()
    assert (alarm.kind, alarm.subject) == ("disk", "archive")
    assert "reserve" in alarm.reason
    house.keep()
    house.keep()
    assert house.alarms() == []
    assert [record.getMessage().split(":")[0] for record in caplog.records if "housekeeper" in record.name] == [
        "instances are refused",
        "the archive can be written again",
    ]
    assert house.files("incoming") == 0


def test_a_failed_step_does_not_end_the_housekeeper(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Event

    class Stop(Event):
        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return True

    monkeypatch.setattr(Archive, "probe", lambda _: 1 / 0)
    Housekeeper(house.database, house.archive, Household(RetentionRule()), lambda: START).run(Stop())


def test_a_certificate_that_ends_soon_is_an_alarm_until_it_is_renewed(tmp_path: Path) -> None:
    house, own = House(tmp_path), make_identity(tmp_path / "tls").certificate
    ends = expires_at(own)

    def alarms_at(now: datetime) -> list[tuple[str, str]]:
        household = Household(RetentionRule(None, None), certificate=own)
        Housekeeper(house.database, house.archive, household, lambda: now).step()
        return [(alarm.kind, alarm.subject) for alarm in house.alarms()]

    assert alarms_at(ends - timedelta(days=31)) == []
    assert alarms_at(ends - timedelta(days=29)) == [("certificate", "node")]
    assert alarms_at(ends - timedelta(days=31)) == []
    house.database.close()

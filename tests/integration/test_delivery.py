"""The courier against real archives: sent by the status, confirmed by the report, given up in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from pynetdicom import Association
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicomnode import courier
from dicomnode.deliveries import DeliveryState, Patience
from dicomnode.dimse import DenialKind
from dicomnode.lifecycle import Backoff
from dicomnode.store import outbox
from dicomnode.store.watch import AlarmKind
from tests.archives import RESULTS, CommittingArchive, SilentArchive, send_report
from tests.outboxes import HOUR_S, PATIENCE, SEG, SR, Outbox


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "_LINGER_S", 0.05)


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Outbox]]:
    made: list[Outbox] = []
    archives: list[CommittingArchive] = []

    def make(archive: CommittingArchive, patience: Patience = PATIENCE, url: str = "") -> Outbox:
        archives.append(archive)
        made.append(Outbox(tmp_path, archive.start(), patience, url=url))
        return made[-1]

    yield make
    for bench in made:
        bench.database.close()
    for archive in archives:
        archive.stop()


def test_case_26_sent_is_not_confirmed_until_the_archive_reports(
    make_bench: Callable[..., Outbox], either_url: str
) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive, url=either_url)
    bench.courier.step()
    assert bench.states() == ["sent", "sent"]
    (action,) = archive.actions
    assert [item.ReferencedSOPInstanceUID for item in action.ReferencedSOPSequence] == [SEG, SR]
    assert [item.ReferencedSOPClassUID for item in action.ReferencedSOPSequence] == list(RESULTS)
    assert archive.callers == ["PANCREAS"]
    with bench.listening() as port:
        assert archive.report_to(port, archive.report()) == 0x0000
    assert bench.states() == ["confirmed", "confirmed"]
    assert bench.events(1) == ["claim", "accept", "ask", "confirm"]
    bench.advance(100 * HOUR_S)
    assert bench.courier.step() == 0
    assert len(archive.actions) == 1
    assert bench.alarms() == []


def test_where_no_commitment_is_declared_sent_is_the_end(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive, Patience(Backoff(10, 900), 96 * HOUR_S))
    bench.courier.step()
    bench.advance(100 * HOUR_S)
    bench.courier.step()
    assert bench.states() == ["sent", "sent"]
    assert archive.actions == []
    assert bench.alarms() == []


def test_what_was_sent_before_commitment_was_switched_on_is_asked_for(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive, Patience(Backoff(10, 900), 96 * HOUR_S))
    bench.courier.step()
    bench.advance(1000 * HOUR_S)  # longer ago than anything is tried
    bench.patience = PATIENCE
    bench.start()
    bench.courier.step()
    assert (bench.states(), bench.alarms(), len(archive.actions)) == (["sent", "sent"], [], 1)
    with bench.listening() as port:
        assert archive.report_to(port, archive.report()) == 0x0000
    assert bench.states() == ["confirmed", "confirmed"]


def answer_at_once(archive: CommittingArchive, association: Association) -> None:
    assert send_report(association, archive.report()) == 0x0000


@pytest.mark.parametrize("moment", ["on_action", "after_action"])
def test_case_26_a_report_on_the_association_of_the_request_before_or_after_its_answer(
    make_bench: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(courier, "_LINGER_S", 20.0)  # it ends with the report
    bench = make_bench(CommittingArchive(**{moment: answer_at_once}))
    bench.courier.step()
    assert bench.states() == ["confirmed", "confirmed"]


def test_case_26_a_report_on_another_association_may_overtake_the_answer_to_the_request(
    make_bench: Callable[..., Outbox],
) -> None:
    ports: list[int] = []

    def report(archive: CommittingArchive, _association: Association) -> None:
        assert archive.report_to(ports[0], archive.report()) == 0x0000

    bench = make_bench(CommittingArchive(on_action=report))
    with bench.listening() as port:
        ports.append(port)
        bench.courier.step()
    assert bench.states() == ["confirmed", "confirmed"]


def test_case_26_what_the_archive_did_not_commit_to_is_sent_again(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    bench.courier.step()
    failure = archive.report({SEG: 0x0112})
    with bench.listening() as port:
        assert archive.report_to(port, failure) == 0x0000
        assert bench.states() == ["pending", "confirmed"]
        assert bench.reasons()[0] == "not committed: 0x0112 no such object instance"
        bench.advance(11)
        bench.courier.step()
        assert archive.received == [SEG, SR, SEG]
        assert archive.report_to(port, failure) == 0x0000  # the old report once more says nothing of the new sending
        assert bench.states() == ["sent", "confirmed"]
        assert archive.report_to(port, archive.report()) == 0x0000
    assert bench.states() == ["confirmed", "confirmed"]
    assert len({action.TransactionUID for action in archive.actions}) == 2


def test_case_26_what_is_never_committed_to_is_parked_with_an_alarm(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    with bench.listening() as port:
        for _ in range(3):
            bench.courier.step()
            archive.report_to(port, archive.report({SEG: 0x0110}))
            bench.advance(1000)
        assert bench.states() == ["parked", "confirmed"]
        assert bench.alarms() == [("delivery", "archive")]
        assert archive.received.count(SEG) == 3
        bench.retry(1)
        assert bench.alarms() == []
        bench.courier.step()
        archive.report_to(port, archive.report())
    assert bench.states() == ["confirmed", "confirmed"]


def test_case_26_a_class_that_is_never_committed_to_is_a_dead_letter(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    bench.courier.step()
    with bench.listening() as port:
        archive.report_to(port, archive.report({SR: 0x0122}))
    assert bench.states() == ["confirmed", "failed"]
    assert bench.alarms() == [("delivery", "archive")]


def test_case_26_no_report_asks_again_then_alarms_then_parks_and_a_late_report_still_counts(
    make_bench: Callable[..., Outbox],
) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    for hours in range(3):
        assert bench.alarms() == []
        bench.courier.step()
        assert len(archive.actions) == hours + 1
        bench.advance(HOUR_S)
    assert bench.alarms() == [("confirmation", "archive")]
    with bench.listening() as port:
        assert archive.report_to(port, archive.report(index=0)) == 0x0000
    assert bench.states() == ["confirmed", "confirmed"]
    bench.courier.step()
    assert bench.alarms() == []
    assert archive.received == [SEG, SR]


def test_case_26_an_archive_that_never_reports_is_given_up_on(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    bench.courier.step()
    bench.advance(97 * HOUR_S)
    bench.courier.step()
    assert bench.states() == ["parked", "parked"]
    assert bench.reasons() == ["no report on the storage commitment; given up after 97 h"] * 2
    assert bench.alarms() == [("delivery", "archive")]
    with bench.listening() as port:  # after the weekend
        assert archive.report_to(port, archive.report()) == 0x0000
    assert bench.states() == ["confirmed", "confirmed"]
    assert bench.alarms() == []


def test_case_26_a_request_that_fails_is_made_again(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive(action_statuses=[0x0213, 0x0110])
    bench = make_bench(archive)
    bench.courier.step()
    assert bench.states() == ["sent", "sent"]
    assert "storage commitment was answered by 0x0213" in bench.reasons()[0]
    for wait_s in (10, 20):
        bench.advance(wait_s - 1)
        bench.courier.step()
        assert archive.actions == []
        bench.advance(1)
        bench.courier.step()
    assert len(archive.actions) == 1
    assert bench.events(1) == ["claim", "accept", "ask", "postpone", "ask", "postpone", "ask"]


def test_case_26_an_archive_without_storage_commitment_raises_the_alarm(make_bench: Callable[..., Outbox]) -> None:
    bench = make_bench(CommittingArchive(classes=RESULTS))
    bench.courier.step()
    assert "accepts no presentation context for Storage Commitment" in bench.reasons()[0]
    bench.advance(2 * HOUR_S)
    bench.courier.step()
    assert bench.states() == ["sent", "sent"]
    assert bench.alarms() == [("confirmation", "archive")]


def test_case_26_a_report_twice_and_after_a_restart(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    bench.courier.step()
    bench.start()
    with bench.listening() as port:
        assert archive.report_to(port, archive.report()) == 0x0000
        assert archive.report_to(port, archive.report()) == 0x0000
    assert bench.states() == ["confirmed", "confirmed"]
    assert bench.events(1).count("confirm") == 1


def test_case_26_a_report_of_a_stranger_or_of_an_unknown_transaction_changes_nothing(
    make_bench: Callable[..., Outbox],
) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    bench.courier.step()
    unknown, event_type = archive.report()
    unknown.TransactionUID = "1.2.3.4"
    nameless, _ = archive.report()
    del nameless.TransactionUID
    with bench.listening() as port:
        assert archive.report_to(port, archive.report(), title="STRANGER") == 0x0124
        assert archive.report_to(port, (unknown, event_type)) == 0x0115
        assert archive.report_to(port, (nameless, event_type)) == 0x0115
        assert archive.report_to(port, (archive.report()[0], 3)) == 0x0113
    assert bench.states() == ["sent", "sent"]
    assert [(one.kind, one.calling_ae, one.address) for one in bench.denials] == [
        (DenialKind.REPORT, "STRANGER", "127.0.0.1"),
        (DenialKind.REPORT, "ARCHIVE", "127.0.0.1"),
    ]


def test_a_report_is_taken_from_an_archive_that_proposes_no_role(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    bench.courier.step()
    with bench.listening() as port:
        assert archive.report_to(port, archive.report(), scp_role=False) == 0x0000
    assert bench.states() == ["confirmed", "confirmed"]


def test_case_25_an_archive_that_is_away_for_good_parks_the_delivery(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    archive.stop()
    for hours in (0, 1, 64, 30):  # a weekend is survived
        bench.advance(hours * HOUR_S)
        assert bench.courier.step() == 2
        assert bench.states() == ["pending", "pending"]
        assert bench.alarms() == []
    bench.advance(HOUR_S)
    bench.courier.step()
    assert bench.states() == ["parked", "parked"]
    assert bench.reasons()[0].endswith("; given up after 96 h")
    assert bench.alarms() == [("delivery", "archive")]
    archive.start()
    bench.advance(1e6)
    assert bench.courier.step() == 0
    for delivery_id in bench.ids():
        bench.retry(delivery_id)
    bench.courier.step()
    assert archive.received == [SEG, SR]
    assert bench.alarms() == []


def test_case_25_an_archive_that_hangs_slows_no_other(make_bench: Callable[..., Outbox]) -> None:
    archive, silent = CommittingArchive(), SilentArchive()
    bench = make_bench(archive)
    hanging = Thread(target=bench.make_courier("other", silent.start()).step)
    hanging.start()
    assert silent.asked.wait(10)
    bench.courier.step()
    assert hanging.is_alive()
    assert archive.received == [SEG, SR]
    assert bench.states("other") == ["sending", "sending"]
    silent.stop()
    hanging.join(20)
    assert bench.states("other") == ["pending", "pending"]


def test_case_27_no_context_for_one_kind_of_result_concerns_that_one_alone(make_bench: Callable[..., Outbox]) -> None:
    archive = CommittingArchive(classes=(RESULTS[1], StorageCommitmentPushModel))
    bench = make_bench(archive)
    bench.courier.step()
    assert bench.states() == ["failed", "sent"]
    assert "accepts no presentation context for Segmentation Storage" in bench.reasons()[0]
    assert bench.alarms() == [("delivery", "archive")]
    assert archive.received == [SR]


def test_a_dead_letter_or_what_waits_can_be_cancelled(make_bench: Callable[..., Outbox]) -> None:
    bench = make_bench(CommittingArchive(store_statuses=[0xC000, 0xA700]))
    bench.courier.step()
    assert bench.states() == ["failed", "pending"]
    ids = bench.ids()
    with bench.database.begin() as connection:
        for delivery_id in ids:
            outbox.cancel(connection, delivery_id, "superseded", bench.now)
    assert bench.states() == [DeliveryState.CANCELLED] * 2
    assert bench.alarms() == []
    bench.advance(1e6)
    assert bench.courier.step() == 0


def test_a_courier_killed_between_writing_and_asking_asks_when_no_report_came(
    make_bench: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = CommittingArchive()
    bench = make_bench(archive)
    with monkeypatch.context() as patch:
        patch.setattr(bench.courier, "_request", lambda *_: None)
        bench.courier.step()
    bench.start()
    bench.courier.step()
    assert archive.actions == []
    bench.advance(HOUR_S)
    bench.courier.step()
    assert len(archive.actions) == 1
    assert bench.events(1) == ["claim", "accept", "ask", "ask"]
    assert AlarmKind.CONFIRMATION not in [kind for kind, _ in bench.alarms()]


def test_couriers_stop_while_an_archive_hangs(make_bench: Callable[..., Outbox]) -> None:
    silent, stop = SilentArchive(), Event()
    bench = make_bench(CommittingArchive())
    running = Thread(target=bench.make_courier("other", silent.start()).run, args=(stop,), daemon=True)
    running.start()
    assert silent.asked.wait(10)
    stop.set()
    silent.stop()
    running.join(20)
    assert not running.is_alive()

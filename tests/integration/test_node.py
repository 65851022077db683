"""The actors together: a real SQLite file, real associations, a model that finds what is bright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import pydicom
import pytest
from pynetdicom.sop_class import (
    CTImageStorage,
)

from dicomnode import dimse, worker
from dicomnode.archive import Archive
from dicomnode.deliveries import DeliveryEvent
from dicomnode.dimse import Peer
from dicomnode.errors import Unavailable
from dicomnode.jobs import JobState
from dicomnode.sections import ListenerSettings
from dicomnode.store import listing, queue, receiving
from tests.bench import SMALL, Bench, Pacs
from tests.phantom import PANCREAS, PhantomOptions, write_series
from tests.served import wait_for
from tests.volumes import counting


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[[Pacs], Bench]]:
    started: list[Bench] = []
    archives: list[Pacs] = []

    def make(pacs: Pacs, url: str = "") -> Bench:
        archives.append(pacs)
        started.append(Bench(tmp_path, pacs.start(), url))
        return started[-1]

    yield make
    for bench in started:
        bench.database.close()
    for pacs in archives:
        pacs.stop()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(tmp_path_factory.mktemp("phantom"), PhantomOptions(**SMALL))


def test_a_series_comes_in_and_its_volume_goes_out(
    make_bench: Callable[..., Bench], phantom: list[Path], either_url: str
) -> None:
    pacs = Pacs()
    bench = make_bench(pacs, either_url)
    with bench.listening() as peer:
        dimse.echo(peer, "SENDER", 5.0)
        outcomes = [outcome for _, outcome in dimse.send(peer, "SENDER", phantom, 5.0)]
    assert {outcome.event for outcome in outcomes} == {DeliveryEvent.ACCEPT}
    assert bench.assembler.step() == 0  # not quiet for long enough
    bench.clock.advance(31)
    assert (bench.assembler.step(), bench.assembler.step()) == (1, 0)
    assert (bench.worker.step(), bench.worker.step()) == (True, False)
    assert bench.job().state is JobState.DONE
    assert (bench.courier.step(), bench.courier.step()) == (2, 0)
    assert [state for state, *_ in bench.deliveries()] == ["sent", "sent"]
    assert sorted(dataset.Modality for dataset in pacs.received) == ["SEG", "SR"]
    assert {dataset.PatientID for dataset in pacs.received} == {"PHANTOM-1"}
    with bench.database.read() as connection:
        (point,) = counting(connection, "PHANTOM-1")
    assert point.volume_ml == pytest.approx(PANCREAS.volume_ml, rel=0.05)
    assert point.acquired_at == "20200102101113"


def test_case_07_a_rerun_makes_the_same_objects(make_bench: Callable[[Pacs], Bench], phantom: list[Path]) -> None:
    bench = make_bench(Pacs())
    bench.take_in(phantom)
    bench.worker.step()
    first = bench.result_files()
    bench.clock.advance(3600)
    with bench.database.begin() as connection:
        queue.requeue(connection, 1, bench.clock())
    bench.worker.step()
    assert bench.job().state is JobState.DONE
    assert len(first) == 2
    assert bench.result_files() == first


def test_case_25_results_wait_for_a_pacs_that_is_away(make_bench: Callable[[Pacs], Bench], phantom: list[Path]) -> None:
    pacs = Pacs()
    bench = make_bench(pacs)
    port = int(pacs._server.server_address[1])
    pacs.stop()
    bench.take_in(phantom)
    bench.worker.step()
    for attempts, wait_s in ((1, 10), (2, 15)):
        assert bench.courier.step() == 2
        assert [(state, tried) for state, tried, _ in bench.deliveries()] == [("pending", attempts)] * 2
        bench.clock.advance(wait_s - 1)
        assert bench.courier.step() == 0
        bench.clock.advance(1)
    pacs.start(port)
    assert (bench.courier.step(), bench.courier.step()) == (2, 0)
    assert [state for state, *_ in bench.deliveries()] == ["sent", "sent"]
    assert len(pacs.received) == 2


def test_case_27_a_pacs_without_a_context_for_the_results(
    make_bench: Callable[[Pacs], Bench], phantom: list[Path]
) -> None:
    pacs = Pacs(classes=(CTImageStorage,))
    bench = make_bench(pacs)
    bench.take_in(phantom)
    bench.worker.step()
    bench.courier.step()
    assert {state for state, *_ in bench.deliveries()} == {"failed"}
    assert all("no presentation context" in reason for *_, reason in bench.deliveries())


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (0xA700, "pending", "0xA700 the archive is out of resources"),
        (0xB000, "sent", "0xB000 warning: coercion"),
        (0xC000, "failed", "0xC000 refused by the archive"),
    ],
)
def test_case_26_each_instance_by_its_own_status(
    make_bench: Callable[[Pacs], Bench], phantom: list[Path], status: int, state: str, reason: str
) -> None:
    pacs = Pacs(statuses=(status,))
    bench = make_bench(pacs)
    bench.take_in(phantom)
    bench.worker.step()
    bench.courier.step()
    first, second = bench.deliveries()
    assert first[0] == state
    assert first[2].startswith(reason)
    assert second[0] == "sent"
    bench.clock.advance(11)
    assert bench.courier.step() == (1 if state == "pending" else 0)
    assert bench.deliveries()[0][0] == ("sent" if state == "pending" else state)


def test_case_28_a_poison_series_fails_and_the_next_is_measured(
    make_bench: Callable[[Pacs], Bench], phantom: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(Pacs())
    bench.take_in(phantom)
    (tmp_path / "second").mkdir()
    bench.take_in(write_series(tmp_path / "second", PhantomOptions(**SMALL, seed="second")))
    poison, honest = bench.job(1).series_instance_uid, worker.analyse

    def analyse(series: Any, *arguments: Any) -> Any:
        if series.series_instance_uid == poison:
            raise RuntimeError("Phantom^Asymmetric")
        return honest(series, *arguments)

    monkeypatch.setattr(worker, "analyse", analyse)
    assert bench.worker.step()
    assert bench.worker.step()
    assert (bench.job(1).state, bench.job(2).state) == (JobState.QUEUED, JobState.DONE)
    assert not bench.worker.step()  # the first waits
    bench.clock.advance(61)
    assert bench.worker.step()
    assert bench.job(1).state is JobState.FAILED
    assert bench.job(1).reason == "internal error: RuntimeError; given up after 2 attempts"


def test_how_far_a_running_job_is_can_be_seen(
    make_bench: Callable[[Pacs], Bench], phantom: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, honest = make_bench(Pacs()), worker.analyse
    bench.take_in(phantom)
    seen: list[float | None] = []

    def analyse(series: Any, model: Any, options: Any) -> Any:
        options.progress(0.42)
        wait_for("it is written down", lambda: look() == 0.42)
        seen.append(look())
        return honest(series, model, options)

    def look() -> float | None:
        with bench.database.read() as connection:
            return listing.listed_job(connection, 1).progress

    monkeypatch.setattr(worker, "analyse", analyse)
    monkeypatch.setattr(worker, "_TELL_S", 0.05)
    assert bench.worker.step()
    assert seen == [0.42]


def test_a_job_of_a_dead_worker_is_taken_over(make_bench: Callable[[Pacs], Bench], phantom: list[Path]) -> None:
    bench = make_bench(Pacs())
    bench.take_in(phantom)
    with bench.database.begin() as connection:
        assert queue.claim(connection, "the dead", bench.clock(), 60.0)
    assert not bench.worker.step()
    bench.clock.advance(61)
    bench.worker.step()  # takes it from the dead; it is due again after the wait
    bench.clock.advance(61)
    bench.worker.step()
    assert (bench.job().state, bench.job().attempts) == (JobState.DONE, 2)


def test_case_14_a_gap_is_refused_for_good(make_bench: Callable[[Pacs], Bench], tmp_path: Path) -> None:
    bench = make_bench(Pacs())
    (tmp_path / "gap").mkdir()
    bench.take_in(write_series(tmp_path / "gap", PhantomOptions(**SMALL, missing=(11,))))
    bench.worker.step()
    assert bench.job().state is JobState.REFUSED
    assert bench.job().reason
    assert "PHANTOM" not in bench.job().reason
    assert bench.deliveries() == []


def test_case_18_a_localizer_in_the_series_is_left_out_and_everybody_is_told(
    make_bench: Callable[[Pacs], Bench], phantom: list[Path]
) -> None:
    scout = pydicom.dcmread(phantom[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    scout.save_as(phantom[0].with_name("scout.dcm"))
    pacs = Pacs()
    bench = make_bench(pacs)
    bench.take_in([*phantom, phantom[0].with_name("scout.dcm")])
    bench.worker.step()
    bench.courier.step()
    with bench.database.read() as connection:
        assumed = [entry.note for entry in queue.timeline(connection, 1) if entry.event == "assume"]
    assert len(assumed) == 1
    assert assumed[0].endswith("Image Type LOCALIZER: a localizer, not a CT volume")
    seg, sr = sorted(pacs.received, key=lambda one: str(one.Modality))
    assert "Image Type LOCALIZER" in sr.to_json()
    referenced = {one.ReferencedSOPInstanceUID for one in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert len(referenced) == len(phantom)
    assert "1.2.3.4" not in referenced


def test_case_13_a_caller_that_is_not_on_the_list_is_rejected(make_bench: Callable[[Pacs], Bench]) -> None:
    bench = make_bench(Pacs())
    settings = ListenerSettings(port=0, allowed_callers=("FRIEND",))
    server = dimse.listen(settings, [bench.receiver.service(("1.2.840.10008.1.2.1",))])
    peer = Peer("PANCREAS", "127.0.0.1", int(server.server_address[1]))
    try:
        dimse.echo(peer, "FRIEND", 5.0)
        with pytest.raises(Unavailable, match=r"association rejected: .*[Cc]alling"):
            dimse.echo(peer, "STRANGER", 5.0)
    finally:
        dimse.close(server, 2.0)


def test_case_02_a_full_disk_is_said_and_echo_still_answered(
    make_bench: Callable[[Pacs], Bench], phantom: list[Path], tmp_path: Path
) -> None:
    bench = make_bench(Pacs())
    bench.receiver._archive = Archive(tmp_path / "archive", 1 << 62)
    with bench.listening() as peer:
        ((_, outcome),) = dimse.send(peer, "SENDER", phantom[:1], 5.0)
        dimse.echo(peer, "SENDER", 5.0)
        assert outcome.event is DeliveryEvent.POSTPONE
        assert outcome.reason.startswith("0xA700")
        bench.receiver._archive = bench.archive
        ((_, outcome),) = dimse.send(peer, "SENDER", phantom[:1], 5.0)
    assert outcome.event is DeliveryEvent.ACCEPT


@pytest.mark.parametrize("slices", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_case_09_interleaved_series_over_parallel_associations(
    make_bench: Callable[[Pacs], Bench], tmp_path: Path, slices: int
) -> None:
    """Four senders, each of which brings a quarter of each of four series."""
    bench = make_bench(Pacs())
    sent: list[list[Path]] = [[], [], [], []]
    for seed in "abcd":
        (tmp_path / seed).mkdir()
        for number, path in enumerate(write_series(tmp_path / seed, PhantomOptions((slices, 4, 4), seed=seed))):
            sent[number % 4].append(path)
    for part in sent:
        Random(1).shuffle(part)
    with bench.listening() as peer, ThreadPoolExecutor(4) as senders:
        answers = senders.map(lambda part: [outcome for _, outcome in dimse.send(peer, "SENDER", part, 120.0)], sent)
        assert {outcome.event for part in answers for outcome in part} == {DeliveryEvent.ACCEPT}
    bench.clock.advance(31)
    assert bench.assembler.step() == 4
    assert [bench.job(job_id).instance_count for job_id in (1, 2, 3, 4)] == [slices] * 4
    with bench.database.read() as connection:
        for job_id in (1, 2, 3, 4):
            job = bench.job(job_id)
            images = receiving.images(connection, job.series_instance_uid, job.last_instance_id)
            kept = [pydicom.dcmread(bench.archive.path(image.path)).SeriesInstanceUID for image in images]
            assert kept == [job.series_instance_uid] * slices


def test_the_actors_stop_when_told(make_bench: Callable[[Pacs], Bench]) -> None:
    bench = make_bench(Pacs())
    stop = Event()
    actors: list[Callable[[Event], None]] = [bench.assembler.run, bench.worker.run, bench.courier.run]
    threads = [Thread(target=run, args=(stop,)) for run in actors]
    for thread in threads:
        thread.start()
    stop.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()

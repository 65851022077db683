"""The assembler with rules and preferences: real files, a real SQLite file, a clock that only the test moves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from threading import Event

import pytest

from dicomnode import node, selection
from dicomnode.archive import Archive
from dicomnode.arrivals import CompletenessRule
from dicomnode.assembler import Assembler
from dicomnode.database import open_database
from dicomnode.jobs import Job, JobState
from dicomnode.receiver import Receiver
from dicomnode.sections import ArchiveSettings, RuleSettings, SeriesSettings
from dicomnode.selection import Selection
from dicomnode.settings import Settings
from dicomnode.store import queue
from tests.phantom import PhantomOptions, write_series

QUIET_S = 30
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
THINNEST = Selection(3, prefer=("thinnest",))


class Desk:
    """Receiver and assembler over one folder."""

    def __init__(self, folder: Path, chosen: Selection) -> None:
        self.folder = folder
        self.now = NOW
        self.names: dict[str, str] = {}
        archive = Archive(folder / "archive", 0)
        self.database = open_database(f"sqlite:///{folder}/node.db")
        self.receiver = Receiver(self.database, archive, lambda: self.now)
        complete = CompletenessRule(QUIET_S, by_study=bool(chosen.prefer))
        self.assembler = Assembler(self.database, archive, complete, chosen, lambda: self.now)

    def receive(self, name: str, slices: int = 3, study: str = "1.2.840.1", **attributes: object) -> None:
        """Store a series; its UID is 1.2 and a digest of the name. The same name with another number: it grew."""
        uid = f"1.2.{int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)}"
        folder = self.folder / f"{name}-{slices}"
        folder.mkdir()
        attributes |= {"StudyInstanceUID": study, "SeriesInstanceUID": uid, "ProtocolName": name}
        for path in write_series(
            folder, PhantomOptions((slices, 4, 4), seed=f"{name} {slices}", attributes=attributes)
        ):
            self.receiver.store(path.read_bytes(), "SENDER")
        self.names[uid] = name

    def step(self, wait_s: float = QUIET_S) -> int:
        self.now += timedelta(seconds=wait_s)
        return self.assembler.step()

    def jobs(self) -> list[tuple[str, JobState]]:
        """Series and state, oldest first."""
        return [(self.names[job.series_instance_uid], job.state) for job in self._jobs()]

    def reason(self, name: str) -> str:
        """Of the newest job of a series."""
        return [job.reason for job in self._jobs() if self.names[job.series_instance_uid] == name][-1]

    def _jobs(self) -> list[Job]:
        with self.database.read() as connection:
            return queue.list_jobs(connection, 100)[::-1]


@pytest.fixture
def open_desk(tmp_path: Path) -> Iterator[Callable[[Selection], Desk]]:
    opened: list[Desk] = []

    def make(chosen: Selection) -> Desk:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        opened.append(Desk(folder, chosen))
        return opened[-1]

    yield make
    for desk in opened:
        desk.database.close()


QUEUED, SKIPPED = JobState.QUEUED, JobState.SKIPPED


def test_case_18_rules_decide_and_the_reason_is_recorded(open_desk: Callable[[Selection], Desk]) -> None:
    rules = (
        RuleSettings(name="no lungs", action="skip", kernel="lung"),
        RuleSettings(name="abdomen", action="analyse", description="abd"),
    )
    desk = open_desk(Selection(3, rules))
    desk.receive("abdomen", SeriesDescription="Abd 1.0")
    desk.receive("lung", SeriesDescription="Abd 1.0", ConvolutionKernel="LUNG")
    desk.receive("head", SeriesDescription="Head of Somebody")
    desk.receive("scout", SeriesDescription="Abd", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert desk.step() == 4
    assert dict(desk.jobs()) == {"abdomen": QUEUED, "lung": SKIPPED, "head": SKIPPED, "scout": SKIPPED}
    assert desk.reason("lung") == "rule 'no lungs' skips it"
    assert desk.reason("head") == "no rule matches"
    assert desk.reason("scout") == "only localizer, projection or reformatted images"


def test_without_rules_and_preference_no_file_is_opened(
    open_desk: Callable[[Selection], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "read_series", None)
    desk = open_desk(Selection(3))
    desk.receive("one")
    desk.receive("two")
    assert desk.step() == 2
    assert dict(desk.jobs()) == {"one": QUEUED, "two": QUEUED}


@pytest.mark.parametrize("order", permutations(["thin", "thick", "thicker"]), ids="-".join)
def test_the_best_of_a_study_is_chosen_in_any_order(
    open_desk: Callable[[Selection], Desk], order: tuple[str, ...]
) -> None:
    thickness = {"thin": "1", "thick": "3", "thicker": "5"}
    desk = open_desk(THINNEST)
    for name in order:
        desk.receive(name, SliceThickness=thickness[name])
        assert desk.step(QUIET_S - 1) == 0  # something of the study came within the quiet time
    assert desk.step() == 3
    assert dict(desk.jobs()) == {"thin": QUEUED, "thick": SKIPPED, "thicker": SKIPPED}
    assert desk.reason("thicker").endswith(" of this study is preferred: thinner (1 mm against 5 mm)")


def test_studies_do_not_wait_for_each_other_nor_compete(open_desk: Callable[[Selection], Desk]) -> None:
    desk = open_desk(THINNEST)
    desk.receive("thick", SliceThickness="5")
    assert desk.step(QUIET_S - 1) == 0
    desk.receive("other", study="1.2.840.2", SliceThickness="1")
    assert desk.step(1) == 1
    assert desk.jobs() == [("thick", QUEUED)]
    assert desk.step() == 1
    assert desk.jobs() == [("thick", QUEUED), ("other", QUEUED)]


def test_a_series_that_cannot_be_analysed_is_never_preferred(open_desk: Callable[[Selection], Desk]) -> None:
    desk = open_desk(
        Selection(3, (RuleSettings(name="thick", action="analyse", thickness_mm={"min": 2}),), ("thinnest",))
    )
    desk.receive("thin", SliceThickness="1")
    desk.receive("few", slices=2, SliceThickness="2")
    desk.receive("thick", SliceThickness="5")
    desk.step()
    assert dict(desk.jobs()) == {"thin": SKIPPED, "few": SKIPPED, "thick": QUEUED}
    assert (desk.reason("thin"), desk.reason("few")) == ("no rule matches", "2 axial slices, fewer than 3")


def test_a_later_series_is_analysed_where_it_is_better_and_skipped_where_not(
    open_desk: Callable[[Selection], Desk],
) -> None:
    desk = open_desk(THINNEST)
    for name, thickness in (("middle", "3"), ("worse", "5"), ("better", "1"), ("between", "2")):
        desk.receive(name, SliceThickness=thickness)
        assert desk.step() == 1
    assert desk.jobs() == [("middle", QUEUED), ("worse", SKIPPED), ("better", QUEUED), ("between", SKIPPED)]
    assert desk.reason("worse").endswith("thinner (3 mm against 5 mm)")
    assert desk.reason("between").endswith("thinner (1 mm against 2 mm)")


def test_case_08_a_chosen_series_that_grows_is_analysed_again(open_desk: Callable[[Selection], Desk]) -> None:
    desk = open_desk(THINNEST)
    for name, thickness in (("middle", "3"), ("better", "1"), ("worse", "5")):
        desk.receive(name, SliceThickness=thickness)
        desk.step()
    desk.receive("middle", slices=4, SliceThickness="3")
    desk.receive("worse", slices=4, SliceThickness="5")
    desk.step()
    assert desk.jobs()[:3] == [("middle", JobState.SUPERSEDED), ("better", QUEUED), ("worse", SKIPPED)]
    assert sorted(desk.jobs()[3:]) == [("middle", QUEUED), ("worse", SKIPPED)]


def test_what_was_refused_stands_in_nobodys_way(open_desk: Callable[[Selection], Desk]) -> None:
    desk = open_desk(THINNEST)
    desk.receive("thin", SliceThickness="1")
    desk.step()
    with desk.database.begin() as connection:
        held = queue.claim(connection, "worker", desk.now, 60.0)
        assert held
        queue.refuse(connection, held, "a gap", desk.now)
    desk.receive("thick", SliceThickness="5")
    desk.step()
    assert desk.jobs() == [("thin", JobState.REFUSED), ("thick", QUEUED)]


def test_the_node_takes_rules_and_preference_from_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RuleSettings(name="abdomen", action="analyse", description="abd")
    series = SeriesSettings(minimum_slices=7, prefer=("thinnest",))
    made: list[tuple[object, ...]] = []

    class Recorded(Assembler):
        def run(self, stop: Event, idle_s: float = 1.0) -> None:
            made.append((self._complete, self._selection))

    monkeypatch.setattr(node, "Assembler", Recorded)
    settings = Settings(archive=ArchiveSettings(path=tmp_path / "archive"), series=series, rules=(rule,))
    node.Node(settings, None)._assemble()
    assert made == [(CompletenessRule(30.0, by_study=True), Selection(7, (rule,), ("thinnest",)))]


def test_a_study_of_which_something_came_meanwhile_is_left_for_later(
    open_desk: Callable[[Selection], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk(THINNEST)
    desk.receive("thin", SliceThickness="1")
    desk.receive("thick", SliceThickness="5")
    honest = selection.read_series

    def read_series(images: selection.Images) -> selection.SeriesFacts:
        monkeypatch.setattr(selection, "read_series", honest)
        desk.receive("thick", slices=4, SliceThickness="5")
        return honest(images)

    monkeypatch.setattr(selection, "read_series", read_series)
    assert desk.step() == 0
    assert desk.jobs() == []
    assert desk.step() == 2

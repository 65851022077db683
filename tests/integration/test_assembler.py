"""The assembler with rules and preferences: real files, a real SQLite file, a clock that only the test moves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from threading import Event

import pytest

from dicomnode import node, selection
from dicomnode.archive import Archive
from dicomnode.arrivals import CompletenessRule
from dicomnode.assembler import Assembler, CountSource
from dicomnode.database import open_database
from dicomnode.errors import Unavailable
from dicomnode.jobs import Job, JobState
from dicomnode.receiver import Receiver
from dicomnode.sections import ArchiveSettings, RuleSettings, SeriesSettings
from dicomnode.selection import Selection
from dicomnode.settings import Settings
from dicomnode.store import queue
from dicomnode.tables import instances
from tests.phantom import PhantomOptions, write_series

QUIET_S = 30
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PATIENT = CompletenessRule(QUIET_S, grace_seconds=600)
ASKING = replace(PATIENT, asks_archive=True)
THINNEST = Selection(3, prefer=("thinnest",))


class Desk:
    """Receiver and assembler over one folder."""

    def __init__(self, folder: Path, chosen: Selection, rule: CompletenessRule, source: CountSource | None) -> None:
        self.folder = folder
        self.now = NOW
        self.names: dict[str, str] = {}
        archive = Archive(folder / "archive", 0)
        self.database = open_database(f"sqlite:///{folder}/node.db")
        self.receiver = Receiver(self.database, archive, lambda: self.now)
        complete = replace(rule, by_study=bool(chosen.prefer))
        self.assembler = Assembler(self.database, archive, complete, chosen, lambda: self.now, source=source)

    def receive(self, name: str, slices: int = 3, study: str = "1.2.840.1", **attributes: object) -> None:
        """Store a series. The same name with another number: it grew."""
        self.store(self.write(name, slices, study, **attributes))

    def write(self, name: str, slices: int = 3, study: str = "1.2.840.1", **attributes: object) -> list[Path]:
        """The files of a series; its UID is 1.2 and a digest of the name."""
        uid = f"1.2.{int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)}"
        folder = self.folder / f"{name}-{slices}"
        folder.mkdir()
        attributes |= {"StudyInstanceUID": study, "SeriesInstanceUID": uid, "ProtocolName": name}
        self.names[uid] = name
        return write_series(folder, PhantomOptions((slices, 4, 4), seed=f"{name} {slices}", attributes=attributes))

    def store(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self.receiver.store(path.read_bytes(), "SENDER")

    def step(self, wait_s: float = QUIET_S) -> int:
        self.now += timedelta(seconds=wait_s)
        return self.assembler.step()

    def jobs(self) -> list[tuple[str, JobState]]:
        """Series and state, oldest first."""
        return [(self.names[job.series_instance_uid], job.state) for job in self._jobs()]

    def reason(self, name: str) -> str:
        """Of the newest job of a series."""
        return [job.reason for job in self._jobs() if self.names[job.series_instance_uid] == name][-1]

    def counts(self) -> list[int]:
        """How many instances each job covers, oldest first."""
        return [job.instance_count for job in self._jobs()]

    def shortfalls(self) -> list[str]:
        """What each job says is missing, oldest first."""
        return [job.shortfall for job in self._jobs()]

    def _jobs(self) -> list[Job]:
        with self.database.read() as connection:
            return queue.list_jobs(connection, 100)[::-1]


@pytest.fixture
def open_desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    opened: list[Desk] = []

    def make(chosen: Selection, rule: CompletenessRule = PATIENT, source: CountSource | None = None) -> Desk:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        opened.append(Desk(folder, chosen, rule, source))
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
    complete = CompletenessRule(30.0, by_study=True, grace_seconds=600.0)
    assert made == [(complete, Selection(7, (rule,), ("thinnest",)))]


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


class Register:
    """An archive that knows counts by the name of the series; the other series it does not know."""

    def __init__(self) -> None:
        self.desk: Desk | None = None
        self.counts: dict[str, int] = {}
        self.asked: list[str] = []
        self.is_away = False

    def ask(self, series: Sequence[tuple[str, str]]) -> dict[str, int | None]:
        assert self.desk
        names = {uid: self.desk.names[uid] for _, uid in series}
        self.asked += names.values()
        if self.is_away:
            raise Unavailable("no connection")
        return {uid: self.counts.get(name) for uid, name in names.items()}


@pytest.fixture
def register(open_desk: Callable[..., Desk]) -> Register:
    made = Register()
    made.desk = open_desk(Selection(3), ASKING, CountSource("the archive PACS", made.ask))
    return made


def test_case_11_a_part_is_not_processed_before_the_grace_ends_and_then_says_so(
    open_desk: Callable[..., Desk],
) -> None:
    desk = open_desk(Selection(3))
    desk.receive("part", slices=4, ImagesInAcquisition="6")
    desk.receive("whole", slices=6, ImagesInAcquisition="6")
    assert desk.step() == 1
    assert desk.jobs() == [("whole", QUEUED)]
    assert desk.step(600 - QUIET_S - 1) == 0
    assert desk.step(1) == 1
    assert desk.shortfalls() == ["", "4 of 6 instances, as the headers counted"]


def test_case_11_a_count_that_is_wrong_delays_and_loses_nothing(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(Selection(3))
    desk.receive("more than announced", slices=6, ImagesInAcquisition="4")
    desk.receive("never so many", slices=4, ImagesInAcquisition="1000")
    assert desk.step() == 1
    assert desk.step(600) == 1
    assert sorted(desk.jobs()) == [("more than announced", QUEUED), ("never so many", QUEUED)]


def test_case_11_a_site_need_not_believe_its_scanners(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(Selection(3), replace(PATIENT, believes_headers=False))
    desk.receive("part", slices=4, ImagesInAcquisition="6")
    assert desk.step() == 1
    assert desk.shortfalls() == [""]


def test_case_11_the_archive_is_asked_once_each_time_a_series_falls_quiet(register: Register) -> None:
    desk = register.desk
    assert desk
    register.counts = {"part": 6}
    desk.receive("part", slices=4)
    desk.receive("unknown", slices=4)
    assert (desk.step(QUIET_S - 1), register.asked) == (0, [])
    assert (desk.step(1), sorted(register.asked)) == (1, ["part", "unknown"])
    assert desk.jobs() == [("unknown", QUEUED)]
    assert (desk.step(100), len(register.asked)) == (0, 2)
    desk.receive("part", slices=5)  # the rest comes, in one way or another
    assert (desk.step(), register.asked[2:]) == (1, ["part"])
    assert desk.shortfalls() == ["", ""]


def test_case_11_the_word_of_the_archive_goes_before_that_of_the_headers(register: Register) -> None:
    desk = register.desk
    assert desk
    register.counts = {"phases": 4, "late": 2}
    desk.receive("phases", slices=4, ImagesInAcquisition="8")  # the acquisition made two series
    desk.receive("late", slices=4, ImagesInAcquisition="6")  # the archive has not got all itself yet
    assert desk.step() == 1
    assert desk.jobs() == [("phases", QUEUED)]
    assert desk.step(600) == 1
    assert desk.shortfalls() == ["", "4 of 6 instances, as the headers counted"]


def test_case_11_an_archive_that_is_away_delays_no_longer_than_the_grace(register: Register) -> None:
    desk = register.desk
    assert desk
    register.is_away = True
    desk.receive("one", slices=4)
    assert (desk.step(), desk.step(1), len(register.asked)) == (0, 0, 1)  # it is left in peace for a while
    assert (desk.step(30), len(register.asked)) == (0, 2)
    assert desk.step(600) == 1
    register.is_away = False
    register.counts = {"two": 9}
    desk.receive("two", slices=4)
    assert (desk.step(), desk.step(600)) == (0, 1)
    assert desk.shortfalls() == ["", "4 of 9 instances, as the archive PACS counted"]


def test_case_10_a_retry_that_begins_with_what_is_here_holds_the_series_open(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(Selection(3))
    paths = desk.write("series", slices=6)
    desk.store(paths[:4])  # then the association breaks
    desk.now += timedelta(seconds=QUIET_S - 1)
    for path in paths[:4]:
        desk.store([path])
        assert desk.step(QUIET_S - 1) == 0
    desk.store(paths[4:])
    assert desk.step() == 1
    assert desk.jobs() == [("series", QUEUED)]
    assert desk.counts() == [6]


def test_case_10_a_part_that_nobody_completes_is_marked_with_its_count(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(Selection(3))
    paths = desk.write("series", slices=6, ImagesInAcquisition="6")
    desk.store(paths[:4])
    assert [desk.step(), desk.step(300), desk.step(300)] == [0, 0, 1]
    assert desk.shortfalls() == ["4 of 6 instances, as the headers counted"]
    desk.store(paths)  # the retry comes after all
    assert desk.step() == 1
    assert desk.jobs() == [("series", JobState.SUPERSEDED), ("series", QUEUED)]
    assert desk.shortfalls()[1] == ""


def test_case_08_late_slices_of_a_series_whose_files_were_removed_ask_for_all_of_it(
    open_desk: Callable[..., Desk],
) -> None:
    desk = open_desk(Selection(3))
    paths = desk.write("series", slices=6)
    desk.store(paths[:5])
    desk.step()
    with desk.database.begin() as connection:
        connection.execute(instances.update().values(removed_at=desk.now, path=""))
    desk.store(paths[5:])
    assert desk.step() == 1
    assert desk.jobs() == [("series", QUEUED), ("series", SKIPPED)]
    assert desk.reason("series").startswith("5 of its 6 instances were removed by retention")
    desk.store(paths)
    assert desk.step() == 0  # what came again makes no job by itself
    with desk.database.begin() as connection:
        queue.requeue(connection, 2, desk.now)
    assert desk.jobs() == [("series", JobState.SUPERSEDED), ("series", QUEUED)]

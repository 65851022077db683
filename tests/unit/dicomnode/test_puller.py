"""The rules of a source: what they find is fetched once, tried with patience, and an alarm tells of what fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode import tables
from dicomnode.database import Connection, Database
from dicomnode.errors import Refused, Unavailable
from dicomnode.lifecycle import Backoff
from dicomnode.puller import Orders, Puller, Rule
from dicomnode.pulling import Filters, FoundSeries, FoundStudy, PullPatience, Query, Retrieved, Rhythm, Tally, judge
from dicomnode.store import pulls, receiving
from tests.house import House

HOURLY = Rhythm(timedelta(hours=1), frozenset())
RULE = Rule("rule", HOURLY, timedelta(days=1), 20, Filters("CT"))
PATIENCE = PullPatience(Backoff(60, 3600), give_up_s=96 * 3600)


class Source:
    """An archive with whatever `studies` holds; `deliver` is called for each fetch."""

    def __init__(self) -> None:
        self.studies: list[FoundStudy] = []
        self.queries: list[Query] = []
        self.fetched: list[str] = []
        self.deliver: Callable[[FoundSeries], object] = lambda _: None
        self.is_away = False

    def find(self, query: Query) -> Iterator[FoundStudy]:
        self.queries.append(query)
        if self.is_away:
            raise Unavailable("it is away")
        yield from self.studies

    def fetch(self, series: FoundSeries) -> str:
        self.fetched.append(series.series_instance_uid)
        self.deliver(series)
        return "3 instances came"


class Ward:
    """A node's database and archive, with the puller of one source."""

    def __init__(self, folder: Path, *rules: Rule, url: str = "") -> None:
        self.house, self.source = House(folder, url), Source()
        self.rules = rules or (RULE,)
        self.source.deliver = lambda _: self.house.receive(0, 1, 2)
        self.restart()

    def restart(self) -> None:
        orders = Orders("archive", self.rules, PATIENCE, timedelta(hours=1))
        self.puller = Puller(self.house.database, self.source, orders, lambda: self.house.now)

    def offer(self, instances: int | None = 3, *, series: str = "", study: str = "1.1", text: str = "portal") -> None:
        found = FoundSeries(study, series or self.house.uid, "CT", text, "1", instances)
        self.source.studies.append(FoundStudy(study, "P", "", "20260102", "abdomen", (found,)))

    def step(self, **later: float) -> bool:
        self.house.now += timedelta(**later)
        return self.puller.step()

    def rows(self) -> list[tuple[str, int]]:
        with self.house.database.read() as connection:
            return [(one.state, one.attempts) for one in pulls.list_pulls(connection, 9)]

    def reason(self) -> str:
        with self.house.database.read() as connection:
            return pulls.list_pulls(connection, 1)[0].reason

    def expected(self) -> tuple[int | None, str]:
        with self.house.database.read() as connection:
            (arrival,) = receiving.arrivals(connection)
        return arrival.expected_instances, arrival.expected_by

    def alarms(self) -> list[tuple[str, str]]:
        return [(alarm.kind, alarm.subject) for alarm in self.house.alarms()]


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.house.database.close()


@pytest.fixture
def either_ward(tmp_path: Path, either_url: str) -> Iterator[Ward]:
    made = Ward(tmp_path, url=either_url)
    yield made
    made.house.database.close()


def test_what_is_found_is_fetched_once(ward: Ward) -> None:
    ward.offer()
    assert ward.step()
    assert (ward.rows(), ward.source.fetched) == ([("fetched", 1)], [ward.house.uid])
    assert "3 are here" in ward.reason()
    ward.restart()
    assert not ward.step(hours=1)
    assert len(ward.source.fetched) == 1
    assert len(ward.source.queries) == 2


def test_a_rule_asks_for_the_days_behind_it_at_its_times(tmp_path: Path) -> None:
    night = Rhythm(timedelta(hours=1), frozenset({datetime(2026, 1, 2, 3, tzinfo=UTC).astimezone().hour}))
    ward = Ward(tmp_path, replace(RULE, rhythm=night))
    assert not ward.step()
    local = ward.house.now.astimezone()
    assert ward.source.queries == [Query(since=(local - timedelta(days=1)).date(), modality="CT")]
    ward.offer()
    assert not ward.step(minutes=30)  # not yet an hour
    assert not ward.step(minutes=30)  # not in its hours
    assert len(ward.source.queries) == 1
    assert ward.step(hours=23)
    assert len(ward.source.queries) == 2
    ward.house.database.close()


def test_what_is_here_already_is_not_fetched(ward: Ward) -> None:
    ward.house.receive(0, 1, 2)
    ward.offer()
    ward.offer(None)
    assert not ward.step()
    assert ward.rows() == []
    ward.offer(4)  # one more than is here
    assert ward.step(hours=1)


def test_what_came_by_itself_between_finding_and_fetching_is_not_fetched(ward: Ward) -> None:
    ward.offer()
    ward.source.deliver = lambda _: (_ for _ in ()).throw(Unavailable("later"))
    ward.step()
    ward.house.receive(0, 1, 2)
    assert ward.step(minutes=2)
    assert (ward.rows(), ward.reason()) == ([("fetched", 2)], "was here already")
    assert len(ward.source.fetched) == 1


def test_case_11_what_is_pulled_waits_for_as_many_as_the_archive_has(ward: Ward) -> None:
    ward.offer(3)
    ward.source.deliver = lambda _: ward.house.receive(0, 1)
    ward.step()
    assert ward.expected() == (3, "the archive archive")
    ward.source.studies.clear()
    ward.offer(4)
    ward.step(hours=1)
    assert ward.expected() == (4, "the archive archive")


def test_a_removed_series_is_not_fetched_again(ward: Ward) -> None:
    ward.house.deliver()
    assert ward.house.keep(days=40) == 4
    ward.offer()
    assert not ward.step(hours=1)
    assert ward.source.fetched == []


def test_a_series_that_grew_is_fetched_again(either_ward: Ward) -> None:
    ward = either_ward
    ward.offer(2)
    ward.source.deliver = lambda _: ward.house.receive(0, 1)
    ward.step()
    ward.source.studies.clear()
    ward.offer(3)
    ward.source.deliver = lambda _: ward.house.receive(0, 1, 2)
    assert ward.step(hours=1)
    assert ward.rows() == [("fetched", 1)]
    assert len(ward.source.fetched) == 2
    assert not ward.step(hours=1)


def test_filters_and_the_most_studies_of_a_look(tmp_path: Path) -> None:
    ward = Ward(tmp_path, replace(RULE, at_most=2, filters=Filters("CT", "abd", "PORTAL", 2)))
    for number in range(4):
        ward.offer(series=f"1.2.{number}", study=f"1.{number}")
    ward.offer(series="1.3.1", text="scout")
    ward.source.studies.insert(0, replace(ward.source.studies[0], description="head", study_instance_uid="1.9"))
    ward.source.deliver = lambda _: None
    ward.step()
    assert len(ward.rows()) == 2
    ward.step(hours=1)
    assert len(ward.rows()) == 4
    ward.step(hours=1)
    assert len(ward.rows()) == 4  # neither the scout nor the head
    ward.house.database.close()


@pytest.mark.parametrize("error", [Unavailable("it is away"), Refused("0xA801: the archive does not know us")])
def test_a_failure_is_tried_again_ever_more_slowly_and_then_given_up(either_ward: Ward, error: Exception) -> None:
    ward = either_ward

    def fail(_: FoundSeries) -> None:
        raise error

    ward.offer()
    ward.source.deliver = fail
    assert ward.step()
    assert not ward.step(seconds=59)
    assert ward.step(seconds=1)
    assert not ward.step(seconds=119)
    assert ward.step(seconds=1)
    assert (ward.rows(), ward.reason()) == ([("wanted", 3)], str(error))
    assert ward.step(hours=96)
    assert (ward.rows(), ward.alarms()) == ([("failed", 4)], [("pull", "archive")])
    assert not ward.step(hours=5)
    with ward.house.database.begin() as connection:
        assert pulls.retry(connection, ward.house.now) == 1
    ward.source.deliver = lambda _: ward.house.receive(0, 1, 2)
    assert ward.step()
    assert (ward.rows(), ward.alarms()) == ([("fetched", 1)], [])


def test_an_archive_that_sends_elsewhere_is_found_out(ward: Ward) -> None:
    ward.offer()
    ward.source.deliver = lambda _: None
    ward.step()
    assert "none is here" in ward.reason()
    assert ward.rows() == [("wanted", 1)]


def test_a_source_that_is_away_for_long_raises_an_alarm_that_goes_with_it(ward: Ward) -> None:
    ward.source.is_away = True
    ward.step()
    ward.step(minutes=59)
    assert ward.alarms() == []
    ward.step(minutes=1)
    assert ward.alarms() == [("pull", "archive")]
    ward.source.is_away = False
    ward.step(hours=1)
    assert ward.alarms() == []


def test_a_crash_in_the_middle_is_an_attempt_and_nothing_is_lost(ward: Ward) -> None:
    def die(_: FoundSeries) -> None:
        ward.house.receive(0)
        raise KeyboardInterrupt

    ward.offer()
    ward.source.deliver = die
    with pytest.raises(KeyboardInterrupt):
        ward.step()
    assert ward.rows() == [("wanted", 1)]
    ward.restart()
    ward.source.deliver = lambda _: ward.house.receive(0, 1, 2)
    assert not ward.step()  # a series that kills is not tried again at once
    assert ward.step(minutes=1)
    assert ward.rows() == [("fetched", 2)]


class Death(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@contextmanager
def dying(database: Database, at: int) -> Iterator[list[str]]:
    """Death before or after the transaction of this number; the names of the moments that were lived through."""
    moments: list[str] = []
    begin = database.begin

    def live(moment: str) -> None:
        if len(moments) == at:
            raise Death
        moments.append(moment)

    @contextmanager
    def begin_or_die() -> Iterator[Connection]:
        live("before")
        with begin() as connection:
            yield connection
            live("within")
        live("after")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "begin", begin_or_die)
        yield moments


def test_a_death_at_any_moment_costs_an_attempt_at_most(ward: Ward) -> None:
    ward.offer()
    died = 0
    for number in range(100):
        with ward.house.database.begin() as connection:
            for table in (tables.pulls, tables.instances, tables.series):
                connection.execute(table.delete())
        for file in (ward.house.folder / "archive" / "received").rglob("*.dcm"):
            file.unlink()
        ward.restart()
        with dying(ward.house.database, number) as moments, suppress(Death):
            ward.step()
        if len(moments) < number:
            break
        died += 1
        ward.restart()
        ward.house.receiver.repair()
        for _ in range(3):
            ward.step(hours=1)
        ((state, attempts),) = ward.rows()
        assert (state, attempts <= 2) == ("fetched", True)
        with ward.house.database.read() as connection:
            assert pulls.count_here(connection, ward.house.uid) == ward.house.files("received") == 3
    assert died >= 15  # noting it, beginning, three instances, settling: before, within and after each


def test_two_rules_that_find_the_same_series_fetch_it_once(tmp_path: Path) -> None:
    ward = Ward(tmp_path, RULE, replace(RULE, name="other"))
    ward.offer()
    ward.step()
    ward.step()
    assert ward.rows() == [("fetched", 1)]
    assert len(ward.source.fetched) == 1
    ward.house.database.close()


@pytest.mark.parametrize(
    ("result", "error", "said"),
    [
        (Retrieved(0xA801, 0), Refused, "does not know the move destination NODE"),
        (Retrieved(0xA900, 0), Refused, "refuses"),
        (Retrieved(0xA702, 0, 5), Unavailable, "out of resources"),
        (Retrieved(0xB000, 7, 3), Unavailable, "7 instances came, 3 failed"),
        (Retrieved(0x0000, 7, 3), Unavailable, "3 failed"),
        (Retrieved(0xC001, 0), Unavailable, "0xC001"),
        (Retrieved(0xFE00, 2), Unavailable, "2 instances came"),
    ],
)
def test_how_a_retrieval_ended(result: Retrieved, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        judge(result, "NODE")


def test_what_came_is_counted_by_the_status_of_each() -> None:
    tally = Tally()
    for status in (0x0000, 0xB000, 0xA700, 0x0000, 0xC000):
        tally.add(status)
    assert tally.result() == Retrieved(0xB000, 2, 2, 1, "0xA700")
    assert judge(Retrieved(0xB000, 2, 0, 1)) == "2 instances came, 1 with a warning"


def test_a_range_of_days() -> None:
    assert Query(since=date(2026, 1, 2)).study_date == "20260102-"
    assert Query(since=date(2026, 1, 2), until=date(2026, 1, 3)).study_date == "20260102-20260103"
    assert Query().study_date == ""

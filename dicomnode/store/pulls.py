"""Series that rules found in archives: each is fetched once, and again only where more of it came."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from dicomnode.lifecycle import IllegalMove, move
from dicomnode.pulling import MOVES, FoundSeries, PullEvent, PullState, is_whole_here
from dicomnode.store import receiving, watch
from dicomnode.store.upsert import insert_new
from dicomnode.tables import instances, pulls


@dataclass(frozen=True)
class Wanted:
    """A series that is to be fetched. since: when it was found, or asked for again."""

    source: str
    series: FoundSeries
    attempts: int
    since: datetime


@dataclass(frozen=True)
class ListedPull:
    """A pull as people look at it. instances: how many the archive says there are. not_before: of the next attempt."""

    source: str
    rule: str
    study_instance_uid: str
    series_instance_uid: str
    state: str
    instances: int | None
    attempts: int
    updated_at: datetime
    not_before: datetime
    reason: str


def count_here(connection: Connection, series_instance_uid: str) -> int:
    """How many instances of a series came, those that retention removed too."""
    statement = select(func.count()).select_from(instances)
    return connection.scalar(statement.where(instances.c.series_instance_uid == series_instance_uid)) or 0


def is_new(connection: Connection, source: str, series: FoundSeries) -> bool:
    """Whether there is something to fetch: not all is here, and it was not found before, or has grown since."""
    if is_whole_here(count_here(connection, series.series_instance_uid), series):
        return False
    row = connection.execute(select(pulls.c.state, pulls.c.instances).where(_is(source, series))).one_or_none()
    return row is None or _has_grown(PullState(row.state), row.instances, series)


def want(connection: Connection, source: str, rule: str, series: FoundSeries, now: datetime) -> None:
    """Have a series fetched that `is_new`; a second rule that finds it changes nothing."""
    key = {"source": source, "series_instance_uid": series.series_instance_uid}
    values: dict[str, Any] = {
        "study_instance_uid": series.study_instance_uid, "rule": rule, "state": PullState.WANTED, "reason": "",
        "instances": series.instances, "attempts": 0, "since": now, "updated_at": now, "not_before": now,
    }  # fmt: skip
    if insert_new(connection, pulls, {**key, **values}):
        receiving.expect_pulled(connection, series.series_instance_uid)
        return
    row = connection.execute(select(pulls.c.state, pulls.c.instances).where(_is(source, series))).one()
    if _has_grown(PullState(row.state), row.instances, series):
        reason = f"the archive has {series.instances} instances by now, not {row.instances}"
        again = {"instances": series.instances, "attempts": 0, "since": now, "not_before": now}
        _move(connection, _is(source, series), (PullEvent.GROW, reason, now), again)
        receiving.expect_pulled(connection, series.series_instance_uid)


def _has_grown(state: PullState, before: int | None, series: FoundSeries) -> bool:
    """Whether there is more to fetch than was there when it was fetched, as far as the archive says."""
    return state is PullState.FETCHED and before is not None and (series.instances or 0) > before


def is_any_due(connection: Connection, source: str, now: datetime) -> bool:
    """Whether a series of the source waits to be fetched."""
    c = pulls.c
    due = (c.source == source) & (c.state == PullState.WANTED) & (c.not_before <= now)
    return connection.scalar(select(c.source).where(due).limit(1)) is not None


def begin(connection: Connection, source: str, now: datetime, not_before: datetime) -> Wanted | None:
    """The series that is due longest, or None.

    not_before: of the attempt after this one, noted now: a crash in the middle of it is an attempt too.
    """
    c = pulls.c
    due = (c.source == source) & (c.state == PullState.WANTED) & (c.not_before <= now)
    statement = select(pulls).where(due).order_by(c.not_before, c.since).limit(1).with_for_update(skip_locked=True)
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    series = FoundSeries(row.study_instance_uid, row.series_instance_uid, "", "", "", row.instances)
    begun = {"attempts": row.attempts + 1, "not_before": not_before, "updated_at": now}
    connection.execute(update(pulls).where(_is(source, series)).values(begun))
    return Wanted(source, series, row.attempts + 1, row.since)


def settle(
    connection: Connection, wanted: Wanted, event: PullEvent, reason: str, now: datetime, *, not_before: datetime
) -> None:
    """Keep what became of an attempt. The alarm of the source is raised where it is given up."""
    _move(connection, _is(wanted.source, wanted.series), (event, reason, now), {"not_before": not_before})
    if event is PullEvent.GIVE_UP:
        watch.raise_alarm(connection, watch.AlarmKind.PULL, wanted.source, f"a series was given up: {reason}", now)


def retry(connection: Connection, now: datetime) -> int:
    """Try every series that was given up once more; returns how many."""
    after = move(MOVES, PullState.FAILED, PullEvent.RETRY)
    again = {"state": after, "reason": "by an operator", "attempts": 0, "since": now, "not_before": now}
    statement = update(pulls).where(pulls.c.state == PullState.FAILED)
    return connection.execute(statement.values(updated_at=now, **again)).rowcount


def count_failed(connection: Connection, source: str) -> int:
    """How many series of a source were given up."""
    there = (pulls.c.source == source) & (pulls.c.state == PullState.FAILED)
    return connection.scalar(select(func.count()).select_from(pulls).where(there)) or 0


def list_pulls(connection: Connection, limit: int, states: Collection[PullState] = ()) -> list[ListedPull]:
    """The newest, newest first; without states: in any."""
    columns = [pulls.c[name] for name in ListedPull.__dataclass_fields__]
    statement = select(*columns).order_by(pulls.c.updated_at.desc()).limit(limit)
    if states:
        statement = statement.where(pulls.c.state.in_(states))
    return [ListedPull(**row) for row in connection.execute(statement).mappings()]


def _is(source: str, series: FoundSeries) -> ColumnElement[bool]:
    return (pulls.c.source == source) & (pulls.c.series_instance_uid == series.series_instance_uid)


def _move(
    connection: Connection, which: ColumnElement[bool], what: tuple[PullEvent, str, datetime], values: dict[str, Any]
) -> None:
    event, reason, now = what
    before = PullState(connection.execute(select(pulls.c.state).where(which)).scalar_one())
    after = move(MOVES, before, event)
    moved = {"state": after, "reason": reason, "updated_at": now, **values}
    if not connection.execute(update(pulls).where(which, pulls.c.state == before).values(moved)).rowcount:
        raise IllegalMove(f"the pull is no longer {before}")

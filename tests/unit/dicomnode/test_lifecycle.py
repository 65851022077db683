"""The tables of moves, the policies and what a C-STORE status means: all pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest

from dicomnode import deliveries, jobs
from dicomnode.arrivals import Arrival, CompletenessRule, is_complete
from dicomnode.deliveries import DeliveryEvent, DeliveryState, judge
from dicomnode.jobs import JobEvent, JobState, RetryPolicy
from dicomnode.lifecycle import Backoff, IllegalMove, move

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moves", "states", "events", "count"),
    [(jobs.MOVES, JobState, JobEvent, 16), (deliveries.MOVES, DeliveryState, DeliveryEvent, 22)],
    ids=["jobs", "deliveries"],
)
def test_every_pair_is_in_the_table_or_illegal(
    moves: Mapping[Any, StrEnum], states: type[StrEnum], events: type[StrEnum], count: int
) -> None:
    assert len(moves) == count
    for state in states:
        for event in events:
            if (state, event) in moves:
                assert move(moves, state, event) is moves[state, event]
            else:
                with pytest.raises(IllegalMove, match=f"{event} is not possible in state {state}"):
                    move(moves, state, event)


def test_every_state_can_be_reached_and_used() -> None:
    assert {*jobs.MOVES.values()} | {JobState.QUEUED, JobState.SKIPPED} == {*JobState}
    assert {event for _, event in jobs.MOVES} == {*JobEvent}
    assert {*deliveries.MOVES.values()} == {*DeliveryState}
    assert {event for _, event in deliveries.MOVES} == {*DeliveryEvent}


def test_only_an_operator_and_a_later_revision_move_what_has_ended() -> None:
    ended = {JobState.DONE, JobState.SKIPPED, JobState.REFUSED, JobState.FAILED, JobState.SUPERSEDED}
    assert {event for state, event in jobs.MOVES if state in ended} == {JobEvent.REQUEUE, JobEvent.SUPERSEDE}
    assert not any(state is JobState.SUPERSEDED for state, _ in jobs.MOVES)


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111])
def test_case_26_success_and_warnings_are_accepted(status: int) -> None:
    outcome = judge(status)
    assert outcome.event is DeliveryEvent.ACCEPT
    assert f"0x{status:04X}" in outcome.reason
    assert ("warning" in outcome.reason) == (status != 0)


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF])
def test_case_26_out_of_resources_is_tried_again(status: int) -> None:
    assert judge(status).event is DeliveryEvent.POSTPONE
    assert f"0x{status:04X}" in judge(status).reason


@pytest.mark.parametrize("status", [0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0122, 0x0124])
def test_case_26_refusals_are_final(status: int) -> None:
    assert judge(status).event is DeliveryEvent.REJECT
    assert f"0x{status:04X}" in judge(status).reason


def test_the_wait_doubles_up_to_the_cap() -> None:
    backoff = Backoff(first_s=10, cap_s=60)
    assert [backoff.wait_s(attempts) for attempts in (1, 2, 3, 4, 5, 10_000)] == [10, 20, 40, 60, 60, 60]


def test_attempts_are_limited() -> None:
    policy = RetryPolicy(3, Backoff(1, 1))
    assert [policy.is_exhausted(attempts) for attempts in (1, 2, 3, 4)] == [False, False, True, True]


@pytest.mark.parametrize(("waited_s", "complete"), [(0, False), (29.9, False), (30, True), (3600, True)])
def test_a_series_is_complete_when_it_was_quiet(waited_s: float, complete: bool) -> None:
    arrival = Arrival("1.2.3", "1.2", 7, NOW, 1)
    assert is_complete(arrival, CompletenessRule(30), NOW + timedelta(seconds=waited_s)) is complete

"""What statuses and failure reasons mean, and how long a delivery is tried: all pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dicomnode.deliveries import (
    MOVES,
    STUCK,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    Outcome,
    Patience,
    judge,
    judge_failure,
)
from dicomnode.lifecycle import Backoff

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DELIVERY = Delivery(1, 1, "archive", "1.2", "1.2.3", "results/1.dcm", attempts=1, denials=0, since=NOW)
PATIENCE = Patience(Backoff(10, 900), give_up_s=3600, report_s=60, most_sendings=3)


def judged() -> dict[DeliveryEvent, set[int]]:
    events: dict[DeliveryEvent, set[int]] = {event: set() for event in DeliveryEvent}
    for status in range(0x10000):
        events[judge(status).event].add(status)
    return events


def test_case_26_every_status_has_its_class() -> None:
    events = judged()
    assert events[DeliveryEvent.ACCEPT] == {0x0000, 0x0001, 0x0107, 0x0111, 0x0116, *range(0xB000, 0xC000)}
    assert events[DeliveryEvent.POSTPONE] == {0x0110, 0x0210, 0x0213, 0xFE00, *range(0xA700, 0xA800)}
    assert {0x0117, 0x0122, 0x0124, *range(0xA900, 0xAA00), *range(0xC000, 0xD000)} <= events[DeliveryEvent.REJECT]
    assert sum(len(statuses) for statuses in events.values()) == 0x10000


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xB006, "warning: elements discarded"),
        (0xB123, "warning: not in the standard"),
        (0xA9F0, "data set does not match SOP class"),
        (0xC123, "cannot understand the data set"),
        (0x0122, "SOP class not supported"),
        (0x0124, "not authorised"),
        (0x0999, "status not known"),
    ],
)
def test_case_26_the_reason_says_what_the_status_means(status: int, words: str) -> None:
    reason = judge(status).reason
    assert reason.startswith(f"0x{status:04X} ")
    assert words in reason


@pytest.mark.parametrize(
    ("failure_reason", "event"),
    [
        (0x0110, DeliveryEvent.DENY),
        (0x0112, DeliveryEvent.DENY),
        (0x0213, DeliveryEvent.DENY),
        (0xABCD, DeliveryEvent.DENY),
        (0x0119, DeliveryEvent.REJECT),
        (0x0122, DeliveryEvent.REJECT),
        (0x0131, DeliveryEvent.POSTPONE),
    ],
)
def test_case_26_why_an_instance_was_not_committed_to(failure_reason: int, event: DeliveryEvent) -> None:
    outcome = judge_failure(failure_reason)
    assert outcome.event is event
    assert f"0x{failure_reason:04X}" in outcome.reason


@pytest.mark.parametrize(("waited_s", "event"), [(3599, DeliveryEvent.POSTPONE), (3600, DeliveryEvent.PARK)])
def test_case_25_patience_ends(waited_s: float, event: DeliveryEvent) -> None:
    outcome = PATIENCE.bound(DELIVERY, Outcome(DeliveryEvent.POSTPONE, "away"), NOW + timedelta(seconds=waited_s))
    assert outcome.event is event
    assert outcome.reason.startswith("away")


@pytest.mark.parametrize(
    ("denials", "event"), [(0, DeliveryEvent.DENY), (1, DeliveryEvent.DENY), (2, DeliveryEvent.PARK)]
)
def test_case_26_an_instance_is_sent_so_often_and_no_oftener(denials: int, event: DeliveryEvent) -> None:
    assert PATIENCE.bound(replace(DELIVERY, denials=denials), judge_failure(0x0110), NOW).event is event


@pytest.mark.parametrize("event", [DeliveryEvent.ACCEPT, DeliveryEvent.REJECT])
def test_patience_changes_no_verdict(event: DeliveryEvent) -> None:
    outcome = Outcome(event, "said")
    assert PATIENCE.bound(DELIVERY, outcome, NOW + timedelta(days=1000)) is outcome


def test_the_wait_is_spread_by_chance_but_never_above_the_cap() -> None:
    backoff = Backoff(first_s=10, cap_s=60)
    assert [backoff.wait_s(2, chance) for chance in (0.0, 0.5, 1.0)] == [10, 15, 20]
    assert backoff.wait_s(10_000, 0.0) == 30


def test_confirmed_only_by_a_report_and_after_it_only_sent_again_by_will() -> None:
    to_confirmed = {(state, event) for (state, event), after in MOVES.items() if after is DeliveryState.CONFIRMED}
    assert to_confirmed == {(DeliveryState.SENT, DeliveryEvent.CONFIRM), (DeliveryState.PARKED, DeliveryEvent.CONFIRM)}
    assert {event for state, event in MOVES if state is DeliveryState.CONFIRMED} == {DeliveryEvent.REQUEUE}


def test_what_is_stuck_can_be_sent_again_or_cancelled_and_what_was_sent_is_never_cancelled() -> None:
    for state in STUCK:
        assert {DeliveryEvent.REQUEUE, DeliveryEvent.CANCEL} <= {event for before, event in MOVES if before is state}
    cancellable = {state for state, event in MOVES if event is DeliveryEvent.CANCEL}
    assert cancellable == {DeliveryState.PENDING, *STUCK}

"""When a series is complete, as a table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dicomnode.arrivals import (
    HEADERS,
    Arrival,
    CompletenessRule,
    complete_groups,
    credible_count,
    is_complete,
    is_to_be_asked_for,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RULE = CompletenessRule(30, grace_seconds=600)
ASKING = replace(RULE, asks_archive=True)
PART = Arrival("1.2.3", "1.2", 7, NOW, 180)
SHORT = replace(PART, expected_instances=200, expected_by=HEADERS)
WHOLE = replace(PART, expected_instances=180, expected_by=HEADERS)
MORE = replace(PART, expected_instances=100, expected_by=HEADERS)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("arrival", "rule", "waits_s"),
    [
        (PART, RULE, 30),
        (WHOLE, RULE, 30),
        (MORE, RULE, 30),
        (SHORT, RULE, 600),
        (PART, ASKING, 600),
        (replace(PART, is_asked=True), ASKING, 30),
        (replace(WHOLE, is_asked=True), ASKING, 30),
        (replace(SHORT, is_asked=True), ASKING, 600),
        (SHORT, replace(RULE, grace_seconds=5), 30),
        (replace(RULE, believes_headers=False).weigh(SHORT), RULE, 30),
        (replace(RULE, believes_headers=False).weigh(replace(SHORT, expected_by="the archive")), RULE, 600),
    ],
)
def test_case_11_a_series_waits_for_what_is_known_to_exist_but_not_for_ever(
    arrival: Arrival, rule: CompletenessRule, waits_s: float
) -> None:
    assert not is_complete(arrival, rule, after(waits_s - 0.001))
    assert is_complete(arrival, rule, after(waits_s))


def test_case_11_the_archive_is_asked_when_a_series_falls_quiet_and_once() -> None:
    assert not is_to_be_asked_for(PART, RULE, after(60))
    assert not is_to_be_asked_for(PART, ASKING, after(29))
    assert is_to_be_asked_for(PART, ASKING, after(30))
    assert not is_to_be_asked_for(replace(PART, is_asked=True), ASKING, after(30))


def test_case_11_a_short_series_holds_its_study_where_one_is_chosen() -> None:
    by_study = replace(RULE, by_study=True)
    other = replace(WHOLE, series_instance_uid="1.2.4")
    assert complete_groups([SHORT, other], by_study, after(60)) == []
    assert complete_groups([SHORT, other], by_study, after(600)) == [[SHORT, other]]
    assert complete_groups([SHORT, other], RULE, after(60)) == [[other]]


@pytest.mark.parametrize(
    ("announced", "count"), [([], None), ([0, -3], None), ([10**9], None), ([5, 7, 0], 7), ([5, 10**9], 5)]
)
def test_case_11_of_what_the_headers_announce_the_largest_that_can_be_true_counts(
    announced: list[int], count: int | None
) -> None:
    assert credible_count(announced) == count

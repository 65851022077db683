"""What may be removed, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicomnode.retention import Files, Holding, RetentionRule, due, why_kept

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def held(days: float, size_bytes: int = 10, **facts: Any) -> Holding:
    return Holding(f"1.{days}", NOW - timedelta(days=days), size_bytes, **facts)


def names(holdings: list[Holding]) -> list[str]:
    return [one.series_instance_uid for one in holdings]


def test_without_settings_nothing_goes() -> None:
    assert [due(files, [held(9999)], RetentionRule(), NOW) for files in Files] == [[], []]
    assert not any(RetentionRule().concerns(files) for files in Files)


def test_by_age_each_kind_of_file_has_its_own() -> None:
    old, older, young = held(31), held(90), held(29)
    rule = RetentionRule(received_days=30, results_days=60)
    assert names(due(Files.RECEIVED, [old, young, older], rule, NOW)) == ["1.90", "1.31"]
    assert names(due(Files.RESULTS, [old, young, older], rule, NOW)) == ["1.90"]


@pytest.mark.parametrize(
    ("quota_bytes", "gone"),
    [(60, []), (59, ["1.9"]), (50, ["1.9"]), (49, ["1.9", "1.8"]), (1, ["1.9", "1.8", "1.7"])],
)
def test_by_quota_the_oldest_go_until_it_is_kept(quota_bytes: int, gone: list[str]) -> None:
    kept = held(30, 30, open_jobs=1)  # it counts, but cannot go
    rule = RetentionRule(quota_bytes=quota_bytes)
    assert names(due(Files.RECEIVED, [held(7), kept, held(9), held(8)], rule, NOW)) == gone
    assert due(Files.RESULTS, [held(9)], rule, NOW) == []


def test_what_age_removes_counts_for_the_quota() -> None:
    rule = RetentionRule(received_days=8.5, quota_bytes=20)
    assert names(due(Files.RECEIVED, [held(7), held(9), held(8)], rule, NOW)) == ["1.9"]
    assert names(due(Files.RECEIVED, [held(7), held(9), held(8)], replace(rule, quota_bytes=15), NOW)) == ["1.9", "1.8"]


@pytest.mark.parametrize(
    ("holding", "why"),
    [
        (held(0.99), "newer"),
        (held(99, is_waiting=True), "waits for a job"),
        (held(99, open_jobs=1), "not ended"),
        (held(99, open_deliveries=1), "not delivered"),
        (held(99, is_undelivered=True), "no destination"),
    ],
)
def test_what_is_still_needed_stays_whatever_the_settings_say(holding: Holding, why: str) -> None:
    assert why in why_kept(holding, NOW)
    assert due(Files.RECEIVED, [holding], RetentionRule(received_days=1, quota_bytes=1), NOW) == []
    assert why_kept(held(1), NOW) == ""

"""`kill -9` at arbitrary moments loses nothing and doubles nothing; `make crash-test` is the long form."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from tests.acceptance.crash.campaign import run_campaign


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_case_01_and_28_nothing_acknowledged_is_lost_and_every_result_arrives_once(tmp_path: Path) -> None:
    (tmp_path / "campaign").mkdir()
    report = run_campaign(tmp_path / "campaign", kills=12, seed=5)
    assert {what: count for what, count in asdict(report.faults).items() if count} == {}
    assert report.tally.acknowledgements >= report.tally.instances > 0
    assert report.tally.jobs_measured >= report.tally.series > 0
    assert report.tally.results_delivered >= 2 * report.tally.series

"""A patient's volumes over time: which count, how they changed, what a change may mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from dicomnode.history import Band, Conditions, Standing, VolumePoint, moment_of, tabulate, timeline
from dicomnode.sections import HistorySettings

BANDS = HistorySettings()
POINT = VolumePoint(
    job_id=1,
    patient_id="P",
    issuer_of_patient_id="",
    study_instance_uid="1",
    series_instance_uid="1.1",
    revision=1,
    acquired_at="20200101",
    volume_ml=80.0,
    confidence=0.9,
    flags=(),
    model_name="m",
    model_version="1",
    model_sha256="a" * 64,
    repeatability_percent=None,
    conditions=Conditions("Siemens", "Force", "Br40", "portal-venous", 3.0),
    measured_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def point(series: str, acquired_at: str, volume_ml: float | None = 80.0, **other: object) -> VolumePoint:
    return replace(POINT, series_instance_uid=series, acquired_at=acquired_at, volume_ml=volume_ml, **other)  # type: ignore[arg-type]


def test_case_33_volumes_stand_in_order_of_acquisition() -> None:
    late, noon, dawn = point("1.3", "20210101120000"), point("1.4", "20200101120000"), point("1.5", "20200101060000")
    entries = timeline([late, noon, dawn], BANDS)
    assert [entry.point for entry in entries] == [dawn, noon, late]
    assert [entry.previous.since if entry.previous else None for entry in entries] == [None, dawn, noon]
    assert [entry.first.since if entry.first else None for entry in entries] == [None, dawn, dawn]
    assert entries[1].previous is not None
    assert entries[1].previous.days == 0.25


@pytest.mark.parametrize(
    ("volume_ml", "band"),
    [
        (80.0, Band.WITHIN), (87.9, Band.WITHIN), (72.1, Band.WITHIN), (88.0, Band.INDETERMINATE),
        (100.0, Band.INDETERMINATE), (60.0, Band.INDETERMINATE), (100.1, Band.BEYOND), (59.0, Band.BEYOND),
    ],
)  # fmt: skip
def test_the_bands_of_a_change(volume_ml: float, band: Band) -> None:
    entry = timeline([point("1.1", "20200101"), point("1.2", "20210101", volume_ml)], BANDS)[1]
    assert entry.previous is not None
    assert (entry.previous.band, entry.previous.is_comparable) == (band, True)
    assert entry.previous.ml == pytest.approx(volume_ml - 80)
    assert entry.previous.percent == pytest.approx((volume_ml - 80) / 0.8)


@pytest.mark.parametrize(("repeatability", "band"), [(None, "indeterminate"), (17.0, "within"), (40.0, "within")])
def test_a_model_that_repeats_itself_badly_widens_the_bands(repeatability: float | None, band: str) -> None:
    one, two = (
        point(uid, date, ml, repeatability_percent=repeatability)
        for uid, date, ml in (("1.1", "20200101", 80.0), ("1.2", "20210101", 92.0))
    )
    (entry,) = timeline([one, two], BANDS)[1:]
    assert entry.previous is not None
    assert entry.previous.band == band


def test_case_32_volumes_of_two_models_are_not_compared_without_a_word() -> None:
    newer = point("1.2", "20210101", 100.0, model_version="2")
    other = point("1.3", "20220101", 100.0, model_version="2", model_sha256="b" * 64)
    first, second, third = timeline([POINT, newer, other], BANDS)
    assert first.previous is None
    assert second.previous is not None
    assert (second.previous.band, second.previous.reasons) == (None, ("measured by m 1 and by m 2",))
    assert second.previous.percent == 25.0
    assert third.previous is not None
    assert third.previous.reasons == ("the weights of m 2 differ",)


def test_case_24_a_lower_bound_is_not_compared() -> None:
    cut = point("1.2", "20210101", 40.0, flags=("touches-border",))
    entries = timeline([POINT, cut, point("1.3", "20220101")], BANDS)
    assert [entry.previous and entry.previous.reasons for entry in entries] == [
        None, ("the later volume is a lower bound",), ("the earlier volume is a lower bound",),
    ]  # fmt: skip
    assert entries[2].first is not None
    assert entries[2].first.is_comparable


def test_what_was_different_stands_beside_the_change() -> None:
    other = point("1.2", "20210101", conditions=Conditions("Siemens", "Flash", "", "arterial", 1.5))
    (entry,) = timeline([POINT, other], BANDS)[1:]
    assert entry.previous is not None
    assert entry.previous.is_comparable
    assert entry.previous.differences == (
        "scanner Flash, before Force",
        "phase arterial, before portal-venous",
        "slice thickness in mm 1.5, before 3",
    )


def test_what_does_not_count_is_shown_and_is_no_reference() -> None:
    wrong = point("1.0", "20190101", 10.0, invalid="stomach (a person, 2026-01-02)", superseded=True)
    old = point("1.1", "20200101", 40.0, superseded=True)
    nothing = point("1.2", "20200601", None)
    good, undated = point("1.3", "20210101"), point("1.4", "")
    entries = timeline([undated, good, nothing, old, wrong], BANDS)
    assert [entry.standing for entry in entries] == [
        Standing.INVALID, Standing.SUPERSEDED, Standing.NOT_FOUND, Standing.COUNTS, Standing.UNDATED,
    ]  # fmt: skip
    assert all(entry.previous is None and entry.first is None for entry in entries)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("20200102030405", "2020-01-02 03:04:05"),
        ("202001020304", "2020-01-02 03:04:00"),
        ("2020010203", "2020-01-02 00:00:00"),
        ("20200102", "2020-01-02 00:00:00"),
        ("20200102996199", "2020-01-02 00:00:00"),
        ("20201302", None), ("", None), ("2020", None), ("2020-01-02", None),
    ],
)  # fmt: skip
def test_times_of_scanners(text: str, moment: str | None) -> None:
    found = moment_of(text)
    assert (found and str(found)) == moment


def test_bands_are_in_order() -> None:
    with pytest.raises(ValidationError, match="above beyond_percent"):
        HistorySettings(within_percent=30)


def test_a_row_has_the_same_columns_whatever_is_known() -> None:
    entries = timeline([POINT, point("1.2", "20210101", 92.0), point("1.3", "", None)], BANDS)
    first, second, third = (tabulate(entry) for entry in entries)
    assert list(first) == list(second) == list(third)
    assert (first["volume_ml"], first["change_ml_since_previous"], first["thickness_mm"]) == (80.0, None, 3.0)
    assert (second["change_percent_since_first"], second["band_since_first"]) == (15.0, "indeterminate")
    assert (third["volume_ml"], third["standing"]) == (None, "not-found")

"""Which series are analysed, and the order of a patient's volumes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomnode.history import VolumePoint, order
from dicomnode.routing import CT_IMAGE_STORAGE, ENHANCED_CT_IMAGE_STORAGE, ImageFacts, RoutingRule, refuse_series

AXIAL = ImageFacts(CT_IMAGE_STORAGE, "CT", "ORIGINAL\\PRIMARY\\AXIAL", "1\\0\\0\\0\\1\\0")
LOCALIZER = replace(AXIAL, image_type="ORIGINAL\\PRIMARY\\LOCALIZER", image_orientation="1\\0\\0\\0\\0\\-1")
RULE = RoutingRule(minimum_slices=20)


def many(facts: ImageFacts, count: int = 30) -> list[ImageFacts]:
    return [facts] * count


def test_an_axial_ct_series_is_analysed() -> None:
    assert refuse_series(many(AXIAL), RULE) == ""


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (many(replace(AXIAL, modality="MR")), "modality is MR, not CT"),
        (many(replace(AXIAL, modality="SR"), 1), "modality is SR, not CT"),
        (many(replace(AXIAL, modality="")), "modality is missing, not CT"),
        (many(AXIAL) + many(replace(AXIAL, modality="PT")), "modality is CT, PT, not CT"),
        (many(LOCALIZER), "only localizer, projection or reformatted images"),
        (many(replace(AXIAL, image_type="DERIVED\\SECONDARY\\MIP")), "only localizer, projection or reformatted"),
        (many(replace(AXIAL, image_type="DERIVED\\SECONDARY\\MPR")), "only localizer, projection or reformatted"),
        (many(replace(AXIAL, image_orientation="1\\0\\0\\0\\0\\-1")), "slices are not axial"),
        (many(replace(AXIAL, image_orientation="0\\1\\0\\0\\0\\-1")), "slices are not axial"),
        (many(AXIAL, 19), "19 axial slices, fewer than 20"),
        (many(AXIAL, 19) + many(LOCALIZER, 5), "19 axial slices, fewer than 20"),
    ],
)
def test_case_18_other_series_are_not_analysed_and_the_reason_is_said(images: list[ImageFacts], reason: str) -> None:
    assert refuse_series(images, RULE).startswith(reason)


def test_case_18_a_localizer_inside_the_series_does_no_harm() -> None:
    assert refuse_series([LOCALIZER, *many(AXIAL)], RULE) == ""


def test_one_multi_frame_object_is_enough() -> None:
    enhanced = ImageFacts(ENHANCED_CT_IMAGE_STORAGE, "CT", "ORIGINAL\\PRIMARY\\VOLUME\\NONE", "")
    assert refuse_series([enhanced], RULE) == ""


@pytest.mark.parametrize("orientation", ["", "1\\0\\0", "a\\b\\c\\d\\e\\f"])
def test_an_illegal_orientation_is_left_for_the_pipeline_to_refuse(orientation: str) -> None:
    assert refuse_series(many(replace(AXIAL, image_orientation=orientation)), RULE) == ""


def test_a_gantry_tilt_is_axial_still() -> None:
    tilted = replace(AXIAL, image_orientation="1\\0\\0\\0\\0.866\\0.5")
    assert refuse_series(many(tilted), RULE) == ""


POINT = VolumePoint("1", "1.1", 1, "20200101", "", 80.0, 0.9, (), "m", "1", "0" * 64)


def test_case_33_volumes_stand_in_order_of_acquisition() -> None:
    late = replace(POINT, series_instance_uid="1.3", acquired_at="20210101120000")
    noon = replace(POINT, series_instance_uid="1.4", acquired_at="20200101120000")
    dawn = replace(POINT, series_instance_uid="1.5", acquired_at="20200101060000")
    assert order([late, noon, dawn]) == [dawn, noon, late]


def test_case_08_only_the_latest_revision_of_a_series_is_current() -> None:
    second = replace(POINT, revision=2, volume_ml=90.0)
    assert order([second, POINT]) == order([POINT, second]) == [second]

"""Which series are analysed, and the order of a patient's volumes."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from dicomnode.ranking import Candidate, prefer
from dicomnode.routing import (
    CT_IMAGE_STORAGE,
    MULTI_FRAME_STORAGES,
    ImageFacts,
    SeriesFacts,
    Verdict,
    judge_series,
    refuse_series,
)
from dicomnode.sections import RuleSettings
from pipeline.image_types import NO_SLICES

AXIAL = ImageFacts(CT_IMAGE_STORAGE, "CT", "ORIGINAL\\PRIMARY\\AXIAL", "1\\0\\0\\0\\1\\0")
LOCALIZER = replace(AXIAL, image_type="ORIGINAL\\PRIMARY\\LOCALIZER", image_orientation="1\\0\\0\\0\\0\\-1")
MINIMUM = 20


def many(facts: ImageFacts, count: int = 30) -> list[ImageFacts]:
    return [facts] * count


def test_an_axial_ct_series_is_analysed() -> None:
    assert refuse_series(many(AXIAL), MINIMUM) == ""


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
    assert refuse_series(images, MINIMUM).startswith(reason)


def test_case_18_a_localizer_inside_the_series_does_no_harm() -> None:
    assert refuse_series([LOCALIZER, *many(AXIAL)], MINIMUM) == ""


@pytest.mark.parametrize("sop_class", sorted(MULTI_FRAME_STORAGES))
def test_one_multi_frame_object_is_enough(sop_class: str) -> None:
    enhanced = ImageFacts(sop_class, "CT", "ORIGINAL\\PRIMARY\\VOLUME\\NONE", "")
    assert refuse_series([enhanced], MINIMUM) == ""


@pytest.mark.parametrize("orientation", ["", "1\\0\\0", "a\\b\\c\\d\\e\\f"])
def test_an_illegal_orientation_is_left_for_the_pipeline_to_refuse(orientation: str) -> None:
    assert refuse_series(many(replace(AXIAL, image_orientation=orientation)), MINIMUM) == ""


def test_a_gantry_tilt_is_axial_still() -> None:
    tilted = replace(AXIAL, image_orientation="1\\0\\0\\0\\0.866\\0.5")
    assert refuse_series(many(tilted), MINIMUM) == ""


FACTS = SeriesFacts(
    modality="CT",
    image_types=frozenset({frozenset({"ORIGINAL", "PRIMARY", "AXIAL"})}),
    description="Abd Pelvis pv 1.0",
    protocol="Pancreas",
    body_part="ABDOMEN",
    kernel="Br38f\\3",
    manufacturer="SIEMENS",
    thickness_mm=1.0,
    slices=300,
    contrast=True,
    series_number=5,
)


def rule(**conditions: object) -> RuleSettings:
    return RuleSettings.model_validate({"name": "r", "action": "analyse", **conditions})


@pytest.mark.parametrize(
    ("conditions", "miss"),
    [
        ({"modality": "CT"}, {"modality": "MR"}),
        ({"image_type": ["original", "AXIAL"]}, {"image_type": ["ORIGINAL", "HELIX"]}),
        ({"not_image_type": ["DERIVED"]}, {"not_image_type": ["DERIVED", "primary"]}),
        ({"description": "ABD|liver"}, {"description": "^pelvis"}),
        ({"protocol": "pancr"}, {"protocol": "head"}),
        ({"body_part": "abdomen"}, {"body_part": "head"}),
        ({"kernel": "^br3"}, {"kernel": "b60"}),
        ({"manufacturer": "siemens"}, {"manufacturer": "ge"}),
        ({"thickness_mm": {"min": 1.0, "max": 1.0}}, {"thickness_mm": {"max": 0.9}}),
        ({"slices": {"min": 300}}, {"slices": {"min": 301}}),
        ({"contrast": True}, {"contrast": False}),
        ({"phase": ["arterial", "portal-venous"]}, {"phase": ["arterial"]}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_each_condition_of_a_rule_holds_or_is_named(conditions: dict[str, object], miss: dict[str, object]) -> None:
    assert judge_series(FACTS, [rule(**conditions)]) == Verdict("", 0)
    verdict = judge_series(FACTS, [rule(**miss)])
    assert (verdict.reason, verdict.rule, len(verdict.misses)) == ("no rule matches", None, 1)
    assert verdict.misses[0].startswith("rule 'r': ")


def test_every_condition_that_fails_is_explained() -> None:
    verdict = judge_series(
        replace(FACTS, description="LUNG 1.0"), [rule(name="pv", description="abd", slices={"max": 9})]
    )
    assert verdict.misses == ("rule 'pv': description 'LUNG 1.0' does not match 'abd'; 300 slices are not at most 9",)


def test_an_unknown_thickness_is_inside_no_range() -> None:
    verdict = judge_series(replace(FACTS, thickness_mm=None), [rule(thickness_mm={"max": 5})])
    assert verdict.misses == ("rule 'r': thickness unknown is not at most 5 mm",)


def test_the_first_rule_that_matches_decides() -> None:
    skip, rest = rule(name="no pv", action="skip", phase=["portal-venous"]), rule(name="rest")
    assert judge_series(FACTS, [skip, rest]) == Verdict("rule 'no pv' skips it", 0)
    assert judge_series(FACTS, [rest, skip]) == Verdict("", 0)
    assert judge_series(replace(FACTS, description="art", protocol=""), [skip, rest]).rule == 1


def test_without_rules_everything_that_can_be_is_analysed() -> None:
    assert judge_series(SeriesFacts(), []) == Verdict("")


THICK = replace(FACTS, thickness_mm=5.0, slices=60, series_number=2)
ARTERIAL = replace(FACTS, description="Abd art 1.0", contrast=False, series_number=4)
PV_THIN, PV_THICK, ART_THIN = (
    Candidate("1.2.840.1000000000000.1", FACTS, 1),
    Candidate("1.2.840.1000000000000.2", THICK, 0),
    Candidate("1.2.840.1000000000000.3", ARTERIAL, 1),
)


@pytest.mark.parametrize(
    ("criteria", "best", "why_not_the_others"),
    [
        (["thinnest"], ART_THIN, {"equal, and its number is lower (4 against 5)", "thinner (1 mm against 5 mm)"}),
        (
            ["phase=portal-venous", "thinnest"],
            PV_THIN,
            {"phase portal-venous (against arterial)", "thinner (1 mm against 5 mm)"},
        ),
        (["rule-order"], PV_THICK, {"earlier rule (number 1 against number 2)"}),
        (
            ["contrast", "most-slices"],
            PV_THIN,
            {"contrast agent recorded (against none)", "more slices (300 against 60)"},
        ),
        (
            ["kernel=soft"],
            PV_THICK,
            {"equal, and its number is lower (2 against 5)", "equal, and its number is lower (2 against 4)"},
        ),
    ],
)
def test_one_series_of_a_study_is_preferred_whatever_the_order(
    criteria: list[str], best: Candidate, why_not_the_others: set[str]
) -> None:
    for candidates in permutations([PV_THIN, PV_THICK, ART_THIN]):
        losers = prefer(candidates, criteria)
        assert losers.keys() == {c.series_instance_uid for c in candidates} - {best.series_instance_uid}
        head = f"series ...{best.series_instance_uid[-12:]} of this study is preferred: "
        assert {reason.removeprefix(head) for reason in losers.values()} == why_not_the_others


def test_a_tie_goes_to_the_lower_uid() -> None:
    twins = [Candidate(uid, FACTS) for uid in ("1.3", "1.2")]
    assert prefer(twins, ["thinnest"]) == {
        "1.3": "series ...1.2 of this study is preferred: equal, and its UID comes first"
    }


def test_a_series_that_was_chosen_before_never_loses_but_beats_worse_ones() -> None:
    held = replace(PV_THICK, is_held=True)
    assert prefer([held, PV_THIN], ["thinnest"]) == {}
    assert prefer([replace(PV_THIN, is_held=True), PV_THICK], ["thinnest"]).keys() == {PV_THICK.series_instance_uid}


@pytest.mark.parametrize("value", NO_SLICES)
def test_case_18_routing_leaves_out_what_the_pipeline_leaves_out(value: str) -> None:
    odd = replace(AXIAL, image_type=f"DERIVED\\SECONDARY\\{value.lower()} ")
    assert refuse_series([odd], 1) == "only localizer, projection or reformatted images"
    assert refuse_series([odd, *many(AXIAL)], 20) == ""

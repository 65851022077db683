"""The report: what it says of what was found, of what was not, and of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from pipeline import provenance
from pipeline.assumptions import Assumption, AssumptionKind
from pipeline.measure import Flag
from pipeline.priors import NONE, Priors
from pipeline.seg import to_seg
from pipeline.series import Series
from pipeline.sr import TITLES, to_sr
from pipeline.volume import ConfidenceKind, Segmentation
from tests.fakes import CARD
from tests.results import AT, describe, mark, nothing, remember, scan_phantom


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return scan_phantom(tmp_path)


def report(series: Series, *flags: Flag, title: str = "126001") -> Dataset:
    """The report of the usual finding."""
    segmentation = mark(series)
    seg = to_seg(series, segmentation, CARD, AT)
    return to_sr(series, describe(segmentation, *flags), CARD, AT, seg=seg, title=title)


def items(parent: Dataset) -> Iterator[Dataset]:
    for item in parent.get("ContentSequence", []):
        yield item
        yield from items(item)


def named(parent: Dataset, code: str) -> list[Dataset]:
    """The content items below `parent` whose concept name has this code value."""
    return [item for item in items(parent) if item.ConceptNameCodeSequence[0].CodeValue == code]


def texts(sr: Dataset) -> str:
    return "\n".join(item.TextValue for item in items(sr) if item.ValueType == "TEXT")


def test_case_31_the_report_holds_the_volume_of_the_segment(series: Series) -> None:
    sr = report(series)
    (group,) = named(sr, "125007")
    (volume,) = named(group, "118565006")
    (value,) = volume.MeasuredValueSequence
    unit = value.MeasurementUnitsCodeSequence[0]
    assert float(value.NumericValue) == pytest.approx(describe(mark(series)).volume_ml, abs=5e-4)
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("mL", "UCUM")
    assert named(volume, "370129005")[0].ConceptCodeSequence[0].CodeValue == "126030"
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1411"
    assert named(group, "121071")[0].ConceptCodeSequence[0].CodeValue == "15776009"
    assert named(group, "363698007")[0].ConceptCodeSequence[0].CodeValue == "15776009"


def test_case_31_the_algorithm_stands_on_the_measurement_not_on_the_group(series: Series) -> None:
    (group,) = named(report(series), "125007")
    (volume,) = named(group, "118565006")
    names = {
        code: [item.TextValue for item in volume.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == code]
        for code in ("111001", "111003")
    }
    assert names == {"111001": [CARD.name], "111003": [CARD.version]}
    assert not [item for item in group.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "111001"]


def test_case_31_segment_tracking_and_source_series_are_those_of_the_seg(series: Series) -> None:
    segmentation = mark(series)
    seg = to_seg(series, segmentation, CARD, AT)
    (group,) = named(to_sr(series, describe(segmentation), CARD, AT, seg=seg), "125007")
    (segment,) = named(group, "121191")
    (reference,) = segment.ReferencedSOPSequence
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber) == (seg.SOPInstanceUID, 1)
    assert series.series_instance_uid == named(group, "121232")[0].UID
    assert seg.SegmentSequence[0].TrackingUID == named(group, "112040")[0].UID
    assert named(group, "112039")[0].TextValue == seg.SegmentSequence[0].TrackingID


def test_case_31_the_report_says_who_observed_and_that_nobody_verified(series: Series) -> None:
    sr = report(series)
    assert sr.SOPClassUID == Comprehensive3DSRStorage
    assert sr.VerificationFlag == "UNVERIFIED"
    assert provenance.device_uid(CARD) == named(sr, "121012")[0].UID
    observer = {code: named(sr, code)[0].TextValue for code in ("121013", "121014", "121015", "121016")}
    assert list(observer.values()) == [provenance.PRODUCT, provenance.MANUFACTURER, "threshold 1", CARD.sha256[:16]]
    assert named(sr, "121058")[0].ConceptCodeSequence[0].CodeValue == "25045-6"
    assert sr.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_case_31_evidence_is_the_segmentation_and_the_whole_series(series: Series) -> None:
    (evidence,) = report(series).CurrentRequestedProcedureEvidenceSequence
    referenced = {one.SeriesInstanceUID: len(one.ReferencedSOPSequence) for one in evidence.ReferencedSeriesSequence}
    assert referenced == {series.series_instance_uid: 12, provenance.result_uid(series, CARD, "seg-series"): 1}


@pytest.mark.parametrize("title", sorted(TITLES))
def test_case_31_the_title_is_chosen_among_cid_7021(series: Series, title: str) -> None:
    assert report(series, title=title).ConceptNameCodeSequence[0].CodeValue == title


def test_another_title_is_an_error(series: Series) -> None:
    with pytest.raises(ValueError, match="CID 7021"):
        report(series, title="121070")


def test_reports_of_different_titles_are_different_objects(series: Series) -> None:
    assert len({report(series, title=title).SOPInstanceUID for title in TITLES}) == len(TITLES)


def test_case_23_nothing_found_is_said_with_its_reason_and_without_a_volume(series: Series) -> None:
    sr = to_sr(series, nothing(series), CARD, AT, seg=None)
    assert named(sr, "15776009")[0].ConceptCodeSequence[0].CodeMeaning == "Not detected"
    assert "found no voxel of the pancreas" in texts(sr)
    assert "0.0 mL" not in texts(sr)
    assert not [item for item in items(sr) if item.ValueType == "NUM"]
    assert sr.SeriesDescription == "Pancreas not found (AI report, unverified)"


def test_case_24_a_cut_organ_is_reported_as_a_lower_bound(series: Series) -> None:
    sr = report(series, Flag.TOUCHES_BORDER)
    assert named(sr, "111052")[0].ConceptCodeSequence[0].CodeMeaning == "Anatomy coverage incomplete"
    assert "lower bound" in texts(sr)
    assert "at least" in sr.SeriesDescription
    whole = report(series)
    assert not named(whole, "111052")
    assert "lower bound" not in texts(whole)


def test_every_flag_has_words_in_the_report(series: Series) -> None:
    plain = texts(report(series))
    for flag in Flag:
        if flag is not Flag.NOTHING_FOUND:
            assert len(texts(report(series, flag))) > len(plain)
            (quality,) = named(report(series, flag), "111052")
            assert quality.ConceptCodeSequence[0].CodeMeaning


def test_codes_of_our_own_are_declared(series: Series) -> None:
    (scheme,) = report(series, Flag.FEW_SLICES).CodingSchemeIdentificationSequence
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeUID[:5]) == ("99PANCREASNODE", "2.25.")
    assert "CodingSchemeIdentificationSequence" not in report(series, Flag.TOUCHES_BORDER)


def test_what_was_assumed_stands_in_the_report(series: Series) -> None:
    assumed = replace(series, assumptions=(Assumption(AssumptionKind.ACQUISITION_CHOSEN, "2 acquisitions: the later"),))
    assert "Assumed: 2 acquisitions: the later" in texts(report(assumed))
    assert "Assumed" not in texts(report(series))


def test_the_statement_of_the_model_stands_in_the_report(series: Series) -> None:
    segmentation = mark(series)
    card = replace(CARD, statement="Small – for tests ± nothing else.")
    seg = to_seg(series, segmentation, card, AT)
    assert "threshold 1: Small ? for tests ? nothing else." in texts(
        to_sr(series, describe(segmentation), card, AT, seg=seg)
    )


def test_a_seg_of_nothing_and_no_seg_of_something_are_errors(series: Series) -> None:
    segmentation = mark(series)
    seg = to_seg(series, segmentation, CARD, AT)
    with pytest.raises(ValueError, match="SEG"):
        to_sr(series, nothing(series), CARD, AT, seg=seg)
    with pytest.raises(ValueError, match="SEG"):
        to_sr(series, describe(segmentation), CARD, AT, seg=None)


def test_the_same_arguments_give_the_same_bytes(series: Series) -> None:
    encoded = []
    for _ in range(2):
        buffer = BytesIO()
        report(series).save_as(buffer, enforce_file_format=True)
        encoded.append(buffer.getvalue())
    assert encoded[0] == encoded[1]


def ensemble_report(series: Series, segmentation: Segmentation) -> Dataset:
    card = replace(CARD, name="threshold x5", version="1+flips.LP", members=5, flips="LP")
    measurement = replace(describe(segmentation), confidence_kind=ConfidenceKind.AGREEMENT, spread_ml=1.26)
    seg = to_seg(series, segmentation, card, AT, measurement=measurement)
    return to_sr(series, measurement, card, AT, seg=seg)


def test_the_report_of_an_ensemble_says_its_members_flips_and_spread(series: Series) -> None:
    sr = ensemble_report(series, mark(series))
    parameters = [item.TextValue for item in named(sr, "111002")]
    assert {"members 5", "flips LP"} <= set(parameters)
    assert named(sr, "111003")[0].TextValue == "1+flips.LP"
    assert "differs by 1.3 mL (standard deviation), mean pairwise Dice 0.90." in texts(sr)


def test_the_report_of_one_pass_speaks_of_no_spread(series: Series) -> None:
    sr = report(series)
    assert not any(item.TextValue.startswith(("members", "flips")) for item in named(sr, "111002"))
    assert "standard deviation" not in texts(sr)


def test_nothing_found_by_all_together_still_says_how_far_the_passes_differ(series: Series) -> None:
    measurement = replace(nothing(series), confidence_kind=ConfidenceKind.AGREEMENT, spread_ml=20.7)
    sr = to_sr(series, measurement, CARD, AT, seg=None)
    assert "differs by 20.7 mL (standard deviation)." in texts(sr)


BEFORE = provenance.Report("1.2.3", "1.2.3.4", Comprehensive3DSRStorage, "1.2.3.4.5")


def revise(series: Series, revision: provenance.Revision) -> tuple[Dataset, Dataset]:
    """SEG and SR of a revision."""
    segmentation = mark(series)
    measurement = describe(segmentation)
    seg = to_seg(series, segmentation, CARD, AT, measurement=measurement, revision=revision)
    return seg, to_sr(series, measurement, CARD, AT, seg=seg, revision=revision)


def test_case_08_a_later_revision_names_the_report_before(series: Series) -> None:
    seg, sr = revise(series, provenance.Revision(2, BEFORE))
    (study,) = sr.PredecessorDocumentsSequence
    (of_series,) = study.ReferencedSeriesSequence
    (instance,) = of_series.ReferencedSOPSequence
    named_before = (study.StudyInstanceUID, of_series.SeriesInstanceUID, instance.ReferencedSOPClassUID)
    assert named_before == ("1.2.3", "1.2.3.4", Comprehensive3DSRStorage)
    assert instance.ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert (seg.InstanceNumber, sr.InstanceNumber) == (2, 2)
    assert seg.SeriesDescription.endswith("(AI, unverified, revision 2)")
    assert sr.SeriesDescription.endswith("(AI report, unverified, revision 2)")
    assert len(sr.SeriesDescription) <= 64
    assert "Revision 2" in texts(sr)


def test_case_08_every_revision_makes_objects_of_its_own(series: Series) -> None:
    """Also where the instances that came late are no slices, so that the same images are measured."""
    made = [revise(series, provenance.Revision(number)) for number in (1, 2, 3)]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({one[keyword].value for pair in made for one in pair}) == 6
    assert "PredecessorDocumentsSequence" not in made[0][1]
    assert "revision" not in made[0][1].SeriesDescription.lower()


def test_case_11_a_report_of_a_part_says_how_much_is_missing(series: Series) -> None:
    _, sr = revise(series, provenance.Revision(shortfall="180 of 200 instances, as the headers counted"))
    assert "Assumed: the series is whole, though it has 180 of 200 instances, as the headers counted" in texts(sr)


def recall(series: Series, priors: Priors) -> Dataset:
    """The usual report, with earlier volumes."""
    segmentation = mark(series)
    seg = to_seg(series, segmentation, CARD, AT)
    return to_sr(series, describe(segmentation), CARD, AT, seg=seg, priors=priors)


def test_earlier_volumes_are_told_in_words(series: Series) -> None:
    told = texts(recall(series, remember()))
    assert "2023-07-15: at least 60.0 mL (m 1); change since then +17.5 mL (+29.2 %) in 900 days, not comp" in told
    assert "2024-11-15: 80.0 mL (threshold 1); change since then -2.5 mL (-3.1 %) in 412 days, within" in told
    assert "(kernel Br40, before B30f)" in told
    assert "Earlier volumes" not in texts(report(series))


def test_earlier_volumes_are_coded_apart_from_the_measurement(series: Series) -> None:
    sr = recall(series, remember())
    (section,) = named(sr, "121068")
    first, second = named(section, "EARLIERVOLUME")
    assert [float(one.MeasuredValueSequence[0].NumericValue) for one in (first, second)] == [60.0, 80.0]
    assert named(second, "126201")[0]["Date"].value.strftime("%Y%m%d") == "20241115"
    assert [named(one, "COMPARISON")[0].ConceptCodeSequence[0].CodeValue for one in (first, second)] == [
        "NOTCOMPARABLE", "WITHINERROR",
    ]  # fmt: skip
    units = {
        item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
        for item in named(second, "VOLUMECHANGE")
    }
    assert units == {"mL", "%"}
    assert len(named(sr, "118565006")) == 1
    assert sr.CodingSchemeIdentificationSequence


def test_the_reports_of_earlier_volumes_are_evidence(series: Series) -> None:
    sr = recall(series, remember())
    (study,) = sr.PertinentOtherEvidenceSequence
    assert study.StudyInstanceUID == "1.2.3"
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert len(sr.CurrentRequestedProcedureEvidenceSequence) == 1


def test_case_23_earlier_volumes_are_told_where_nothing_was_found(series: Series) -> None:
    alone = Priors(tuple(replace(one, change=None) for one in remember().volumes))
    sr = to_sr(series, nothing(series), CARD, AT, seg=None, priors=alone)
    assert "2024-11-15: 80.0 mL (threshold 1)." in texts(sr)
    assert not named(sr, "VOLUMECHANGE")


def test_reports_that_say_other_things_are_other_objects(series: Series) -> None:
    known = remember()
    later = replace(known, volumes=known.volumes[:1])
    made = [recall(series, one) for one in (NONE, known, later, remember(revised=True), replace(known, edition=3))]
    assert len({one.SOPInstanceUID for one in made}) == len(made)
    assert len({one.SeriesInstanceUID for one in made}) == len(made)
    assert recall(series, known) == made[1]


def test_a_report_with_other_priors_names_the_one_whose_place_it_takes(series: Series) -> None:
    sr = recall(series, remember(revised=True))
    (study,) = sr.PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.9.4.5"
    assert "takes the place of the one before" in texts(sr)


def test_of_many_earlier_volumes_the_first_and_the_last_are_told(series: Series) -> None:
    one = remember().volumes[0]
    many = Priors(tuple(replace(one, acquired_at=f"{2000 + year}0101") for year in range(20)))
    told = texts(recall(series, many))
    assert "Earlier volumes: 20, of which 8 are not told." in told
    assert ("2000-01-01" in told, "2008-01-01" in told, "2009-01-01" in told, "2019-01-01" in told) == (
        True,
        False,
        True,
        True,
    )

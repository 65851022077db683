"""The segmentation object: where its frames lie, what it says, and that it is always the same."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from pipeline import provenance
from pipeline.measure import Flag
from pipeline.seg import to_seg
from pipeline.series import Series
from pipeline.volume import Grid, Segmentation
from tests import phantom
from tests.fakes import CARD
from tests.results import AT, describe, mark, scan_enhanced, scan_phantom


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return scan_phantom(tmp_path)


def encode(result: Dataset) -> bytes:
    buffer = BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def source_of(frame: Dataset) -> Dataset:
    (derivation,) = frame.DerivationImageSequence
    (source,) = derivation.SourceImageSequence
    assert derivation.DerivationCodeSequence[0].CodeValue == "113076"
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    return source


def frames_by_source(seg: Dataset) -> dict[tuple[str, int], np.ndarray]:
    """Source instance and frame number -> the pixels that the SEG lays on it."""
    pixels = seg.pixel_array
    sources = [source_of(frame) for frame in seg.PerFrameFunctionalGroupsSequence]
    return {
        (source.ReferencedSOPInstanceUID, int(source.get("ReferencedFrameNumber", 1))): frame
        for source, frame in zip(sources, pixels, strict=True)
    }


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("orientation", [phantom.AXIAL, phantom.PRONE, phantom.NEGATED_COLUMN, phantom.OBLIQUE])
def test_case_30_every_frame_references_the_slice_it_lies_on(
    tmp_path: Path, orientation: tuple[float, ...], order: str
) -> None:
    series = scan_phantom(tmp_path, orientation=orientation, order=order)
    segmentation = mark(series)
    seg = to_seg(series, segmentation, CARD, AT)
    positions = {one.SOPInstanceUID: one.ImagePositionPatient for one in series.instances}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = positions[source_of(frame).ReferencedSOPInstanceUID]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(source, abs=1e-5)
    frames = frames_by_source(seg)
    for index, instance in enumerate(series.instances):
        expected = segmentation.mask[index]
        found = frames.get((instance.SOPInstanceUID, 1))
        assert expected.any() == (found is not None)
        if found is not None:
            np.testing.assert_array_equal(found, expected)


def test_case_30_every_frame_references_its_frame_of_an_enhanced_ct(tmp_path: Path) -> None:
    series = scan_enhanced(tmp_path)
    assert [plane.frame for plane in series.planes] != sorted(plane.frame for plane in series.planes)
    segmentation = mark(series)
    frames = frames_by_source(to_seg(series, segmentation, CARD, AT))
    assert len(frames) == 6
    for index, plane in enumerate(series.planes):
        if segmentation.mask[index].any():
            found = frames[series.first.SOPInstanceUID, plane.frame + 1]
            np.testing.assert_array_equal(found, segmentation.mask[index])


def test_case_30_the_frame_of_reference_and_all_source_images_are_named(series: Series) -> None:
    seg = to_seg(series, mark(series), CARD, AT)
    (referenced,) = seg.ReferencedSeriesSequence
    assert seg.FrameOfReferenceUID == series.first.FrameOfReferenceUID
    assert referenced.SeriesInstanceUID == series.series_instance_uid
    uids = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert uids == {one.SOPInstanceUID for one in series.instances}
    assert seg.StudyInstanceUID == series.study_instance_uid


def test_case_30_the_storage_is_what_archives_and_viewers_take(series: Series) -> None:
    seg = to_seg(series, mark(series), CARD, AT)
    assert seg.SOPClassUID == SegmentationStorage
    assert seg.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (seg.SegmentationType, seg.NumberOfFrames, seg.Modality) == ("BINARY", 6, "SEG")
    assert (str(seg.ContentDate), str(seg.ContentTime), seg.InstanceCreationTime) == ("20260102", "030405", "030405")
    assert seg.SeriesInstanceUID != series.series_instance_uid
    assert seg.ContentCreatorName


def test_case_30_the_segment_is_described_in_codes(series: Series) -> None:
    (segment,) = to_seg(series, mark(series), CARD, AT).SegmentSequence
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    category, kind = (segment[f"SegmentedProperty{name}CodeSequence"].value[0] for name in ("Category", "Type"))
    assert (category.CodeValue, category.CodingSchemeDesignator) == ("91723000", "SCT")
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("15776009", "SCT")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (CARD.name, CARD.version)
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("Pancreas", "AUTOMATIC")
    assert (segment.TrackingID, segment.TrackingUID) == provenance.tracking(series, CARD)
    assert len(segment.RecommendedDisplayCIELabValue) == 3


def test_the_same_arguments_give_the_same_bytes(series: Series) -> None:
    segmentation = mark(series)
    assert encode(to_seg(series, segmentation, CARD, AT)) == encode(to_seg(series, segmentation, CARD, AT))


def test_the_positions_give_spacing_and_thickness(series: Series) -> None:
    shared = to_seg(series, mark(series), CARD, AT).SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert (measures.SpacingBetweenSlices, measures.SliceThickness, list(measures.PixelSpacing)) == (
        5.0,
        5.0,
        [3.0, 4.0],
    )


def test_an_empty_slice_inside_the_organ_keeps_its_frame(series: Series) -> None:
    mask = mark(series).mask.copy()
    mask[5] = False
    seg = to_seg(series, Segmentation(mask, series.grid, 0.9), CARD, AT)
    distances = [
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in seg.PerFrameFunctionalGroupsSequence
    ]
    np.testing.assert_allclose(np.abs(np.diff(distances)), 5.0)
    assert [bool(frame.any()) for frame in seg.pixel_array].count(False) == 1


def test_the_volume_is_read_without_opening_the_report(series: Series) -> None:
    segmentation = mark(series)
    measurement = describe(segmentation, Flag.TOUCHES_BORDER)
    seg = to_seg(series, segmentation, CARD, AT, measurement=measurement)
    words = f"Pancreas at least {measurement.volume_ml:.1f} mL"
    assert seg.SeriesDescription == f"{words} (AI, unverified)"
    assert seg.SegmentSequence[0].SegmentDescription == words
    assert words in seg.ContentDescription


def test_the_mask_of_the_caller_is_left_alone(series: Series) -> None:
    segmentation = mark(series)
    before = segmentation.mask.copy()
    to_seg(series, segmentation, CARD, AT)
    np.testing.assert_array_equal(segmentation.mask, before)


def test_an_empty_mask_makes_no_object(series: Series) -> None:
    empty = Segmentation(np.zeros(series.grid.shape, bool), series.grid, 0.0)
    with pytest.raises(ValueError, match="empty mask"):
        to_seg(series, empty, CARD, AT)


def test_a_mask_on_another_grid_is_an_error(series: Series) -> None:
    flipped = Grid(series.grid.geometry.flip_spatial(0))
    with pytest.raises(ValueError, match="grid"):
        to_seg(series, Segmentation(mark(series).mask.copy(), flipped, 0.9), CARD, AT)


def test_highdicom_reads_the_volume_back(series: Series) -> None:
    segmentation = mark(series)
    seg = hd.seg.Segmentation.from_dataset(to_seg(series, segmentation, CARD, AT))
    pixels = seg.get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in series.instances], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, segmentation.mask)


def test_members_and_flips_are_parameters_of_the_algorithm(series: Series) -> None:
    def algorithm(**changes: object) -> Dataset:
        seg = to_seg(series, mark(series), replace(CARD, **changes), AT)
        return seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]

    assert "AlgorithmParameters" not in algorithm()
    assert algorithm(members=5, flips="LP").AlgorithmParameters == "members=5,flips=LP"

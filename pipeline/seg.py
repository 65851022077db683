"""A segmentation as a DICOM Segmentation object (PS3.3 A.51), in the form that archives and viewers take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from models.card import Card
from pipeline import provenance
from pipeline.measure import Measurement
from pipeline.planes import Plane
from pipeline.provenance import FIRST, Revision
from pipeline.series import Series
from pipeline.volume import Segmentation

_COLOUR = hd.color.CIELabColor.from_string("goldenrod")


def to_seg(
    series: Series,
    segmentation: Segmentation,
    card: Card,
    at: datetime,
    *,
    measurement: Measurement | None = None,
    revision: Revision = FIRST,
) -> Dataset:
    """The segmentation as a SEG: BINARY, Explicit VR Little Endian, one segment, no frames above and below it.

    Each frame names the source image it lies on (PS3.3 C.7.6.16.2.6); frames are in the order of position, not of
    slices. The same arguments give the same bytes and the same UIDs.

    series: the source; `instances[k]` is slice k of the mask, or one Enhanced CT holds them all.
    segmentation: on the grid of the source, not empty.
    at: start of the analysis, time zone aware; gives Content Date and Time.
    measurement: puts the volume into the descriptions, so that it is read without opening the report.
    revision: of the series; its number is the Instance Number and, from the second on, stands in the description.
    Raises ValueError where the mask is empty, or its grid is not that of the source.
    """
    if not segmentation.mask.any():
        raise ValueError("an empty mask makes no Segmentation object")
    if not segmentation.grid.equals(series.grid, 1e-3):
        raise ValueError("the mask does not lie on the grid of the series")
    # Between the first and the last slice an empty one keeps its frame: of frames that are not evenly apart GDCM, and
    # SimpleITK with it, loses the spacing.
    filled = np.flatnonzero(segmentation.mask.any(axis=(1, 2)))
    span = slice(filled[0], filled[-1] + 1)
    local = provenance.local_time(series, at)
    words = f" {provenance.volume_words(measurement)}" if measurement else ""
    result = hd.seg.Segmentation(
        source_images=_sources(series),
        pixel_array=segmentation.mask[span],
        plane_positions=[hd.PlanePositionSequence("PATIENT", plane.position) for plane in series.planes[span]],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(series, card)],
        series_instance_uid=provenance.result_uid(series, card, "seg-series", revision),
        series_number=provenance.series_number(series, 1),
        sop_instance_uid=provenance.result_uid(series, card, "seg", revision),
        instance_number=revision.number,
        series_description=f"Pancreas{words} (AI, unverified{revision.suffix})",
        content_label="PANCREAS",
        content_description=f"Pancreas{words}, automatic, unverified",
        content_creator_name=f"{provenance.PRODUCT}^AI",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
        content_date=local.date(),
        content_time=local.time(),
        series_date=local.date(),
        series_time=local.time(),
        **provenance.equipment(card),
    )
    if words:
        result.SegmentSequence[0].SegmentDescription = f"Pancreas{words}"
    _derive_dimension_uid(result, provenance.result_uid(series, card, "dimensions", revision))
    if len(series.instances) == 1:
        _number_source_frames(result, sorted(plane.frame for plane in series.planes))
    provenance.complete(result, series, card, at)
    return result


def _describe(series: Series, card: Card) -> hd.seg.SegmentDescription:
    tracking_id, tracking_uid = provenance.tracking(series, card)
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Pancreas",
        segmented_property_category=provenance.ANATOMICAL_STRUCTURE,
        segmented_property_type=provenance.PANCREAS,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=provenance.plain(card.name),
            family=provenance.ARTIFICIAL_INTELLIGENCE,
            version=provenance.plain(card.version),
            source=provenance.MANUFACTURER,
            parameters=provenance.passes(card) or None,
        ),
        tracking_id=tracking_id,
        tracking_uid=tracking_uid,
        display_color=_COLOUR,
    )


def _derive_dimension_uid(result: Dataset, uid: str) -> None:
    """Replace the random Dimension Organization UID that highdicom draws."""
    for item in (*result.DimensionIndexSequence, *result.DimensionOrganizationSequence):
        item.DimensionOrganizationUID = uid


def _number_source_frames(result: Dataset, frames: Sequence[int]) -> None:
    """Refer to the frames of the multi-frame source by their own numbers: the stand-in holds only the measured ones."""
    for groups in result.PerFrameFunctionalGroupsSequence:
        for derivation in groups.get("DerivationImageSequence", []):
            for source in derivation.SourceImageSequence:
                source.ReferencedFrameNumber = frames[int(source.ReferencedFrameNumber) - 1] + 1


def _sources(series: Series) -> list[Dataset]:
    """Stand-ins for the source images that carry the geometry highdicom reads of them, and nothing else."""
    results = [_image(instance, series) for instance in series.instances]
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = _decimals(series.planes[0].orientation)
    measures.PixelSpacing = _decimals(series.planes[0].spacing_mm)
    # Of the positions: the headers' thickness and spacing are known to say otherwise, and readers take either.
    measures.SliceThickness = measures.SpacingBetweenSlices = _decimals([series.grid.geometry.spacing_between_slices])[
        0
    ]
    positions = [_position(plane) for plane in series.planes]
    if len(results) == 1:
        frames = sorted(zip(series.planes, positions, strict=True), key=lambda pair: pair[0].frame)
        _add_functional_groups(results[0], orientation, measures, [position for _, position in frames])
        return results
    for result, position in zip(results, positions, strict=True):
        for part in (orientation, measures, position):
            result.update(part)
    return results


def _position(plane: Plane) -> Dataset:
    position = Dataset()
    position.ImagePositionPatient = _decimals(plane.position)
    return position


def _image(instance: Dataset, series: Series) -> Dataset:
    result = provenance.stand_in(instance)
    result.Rows, result.Columns = instance.Rows, instance.Columns
    result.FrameOfReferenceUID = instance.FrameOfReferenceUID
    result.PositionReferenceIndicator = instance.get("PositionReferenceIndicator")
    result.LossyImageCompression = "01" if series.is_lossy else "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if instance.get(keyword):
            setattr(result, keyword, instance.get(keyword))
    return result


def _add_functional_groups(
    result: Dataset, orientation: Dataset, measures: Dataset, positions: Sequence[Dataset]
) -> None:
    shared, frames = Dataset(), [Dataset() for _ in positions]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    for frame, position in zip(frames, positions, strict=True):
        frame.PlanePositionSequence = [position]
    result.NumberOfFrames = len(frames)
    result.SharedFunctionalGroupsSequence, result.PerFrameFunctionalGroupsSequence = [shared], frames


def _decimals(values: Iterable[float]) -> list[str]:
    """Numbers as the VR DS writes them: at most 16 characters (PS3.5 6.2)."""
    return [format_number_as_ds(float(value)) for value in values]

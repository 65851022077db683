"""The measurement as a DICOM Structured Report: Comprehensive 3D SR, TID 1500 Measurement Report (PS3.16)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import highdicom as hd
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from models.card import Card
from pipeline import VERSION, provenance
from pipeline.measure import Flag, Measurement
from pipeline.provenance import FIRST, Revision
from pipeline.series import Series

TITLES = {
    "126000": Code("126000", "DCM", "Imaging Measurement Report"),
    "126001": Code("126001", "DCM", "Oncology Measurement Report"),
    "126002": Code("126002", "DCM", "Dynamic Contrast MR Measurement Report"),
    "126003": Code("126003", "DCM", "PET Measurement Report"),
}
"""Document titles by code value (CID 7021). Viewers that draw coordinates only show 126000 as an empty image."""

_VOLUME = Code("118565006", "SCT", "Volume")
_NOT_DETECTED = Code("260415000", "SCT", "Not detected")
_MILLILITRE = Code("mL", "UCUM", "milliliter")
_QUALITATIVE = Code("C0034375", "UMLS", "Qualitative Evaluations")
_ENGLISH = Code("en-US", "RFC5646", "English (United States)")
_CONTAINS = RelationshipTypeValues.CONTAINS

_QUALITY = {
    Flag.TOUCHES_BORDER: Code("130576", "DCM", "Anatomy coverage incomplete"),
    Flag.NO_CONTRAST: Code("130580", "DCM", "Inadequate contrast enhancement"),
    # DICOM has no codes for these.
    Flag.FEW_SLICES: Code("FEWSLICES", provenance.CODING_SCHEME, "Few slices across the structure"),
    Flag.UNLIKELY_HU: Code("UNLIKELYHU", provenance.CODING_SCHEME, "Unlikely CT numbers in the segment"),
    Flag.IMPLAUSIBLE_VOLUME: Code("IMPLAUSIBLEVOLUME", provenance.CODING_SCHEME, "Volume outside published range"),
    Flag.SEVERAL_COMPONENTS: Code("SEVERALCOMPONENTS", provenance.CODING_SCHEME, "Separate pieces left out"),
    Flag.LOW_CONFIDENCE: Code("LOWCONFIDENCE", provenance.CODING_SCHEME, "Low confidence of the model"),
    Flag.INCOMPLETE_SERIES: Code("INCOMPLETESERIES", provenance.CODING_SCHEME, "Instances of the series are missing"),
}


def to_sr(
    series: Series,
    measurement: Measurement,
    card: Card,
    at: datetime,
    *,
    seg: Dataset | None,
    title: str = "126001",
    revision: Revision = FIRST,
) -> Dataset:
    """The measurement as an unverified report; the same arguments give the same bytes and the same UIDs.

    at: start of the analysis, time zone aware; gives Content Date and Time.
    seg: the segmentation that was measured; None where nothing was found, which the report then says with its reason
        instead of a volume.
    title: code value of a document title of CID 7021, a key of TITLES.
    revision: of the series; names the report that this one takes the place of (PS3.3 C.17.2) and what is missing.
    Raises ValueError for another title, and where there is a SEG of nothing or no SEG of something.
    """
    if title not in TITLES:
        raise ValueError(f"report title {title!r} is none of {', '.join(TITLES)} (CID 7021)")
    if (seg is None) != (Flag.NOTHING_FOUND in measurement.flags):
        raise ValueError("a report needs the SEG of what was found, and no SEG where nothing was found")
    local = provenance.local_time(series, at)
    evidence = [provenance.stand_in(instance) for instance in series.instances]
    result = hd.sr.Comprehensive3DSR(
        evidence=[*evidence, *([seg] if seg else [])],
        content=_report(series, measurement, card, seg, TITLES[title], revision=revision),
        series_instance_uid=provenance.result_uid(series, card, f"sr-series {title}", revision),
        series_number=provenance.series_number(series, 2),
        sop_instance_uid=provenance.result_uid(series, card, f"sr {title}", revision),
        instance_number=revision.number,
        is_complete=True,
        is_verified=False,
        series_description=f"Pancreas {provenance.volume_words(measurement)} (AI report, unverified{revision.suffix})",
        previous_versions=_predecessors(revision),
        content_date=local.date(),
        content_time=local.time(),
        series_date=local.date(),
        series_time=local.time(),
        **provenance.equipment(card),
    )
    provenance.complete(result, series, card, at)
    if any(_QUALITY[flag].scheme_designator == provenance.CODING_SCHEME for flag in measurement.flags if seg):
        result.CodingSchemeIdentificationSequence = [provenance.coding_scheme()]
    return result


def _predecessors(revision: Revision) -> list[Dataset] | None:
    """The report before, in the form of which highdicom makes Predecessor Documents Sequence."""
    if revision.predecessor is None:
        return None
    item = Dataset()
    item.StudyInstanceUID = revision.predecessor.study_instance_uid
    item.SeriesInstanceUID = revision.predecessor.series_instance_uid
    item.SOPClassUID = revision.predecessor.sop_class_uid
    item.SOPInstanceUID = revision.predecessor.sop_instance_uid
    return [item]


def _report(
    series: Series, measurement: Measurement, card: Card, seg: Dataset | None, title: Code, *, revision: Revision
) -> Dataset:
    report = ContainerContentItem(name=title, template_id="1500")
    report.ContentSequence = ContentSequence()
    report.ContentSequence.extend(hd.sr.LanguageOfContentItemAndDescendants(_ENGLISH))
    report.ContentSequence.extend(_observer(card))
    report.ContentSequence.append(
        CodeContentItem(
            name=codes.DCM.ProcedureReported,
            value=Code("25045-6", "LN", "CT unspecified body region"),
            relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    if seg is not None:
        group = _measurement_group(series, measurement, card, seg)
        report.ContentSequence.append(_container(codes.DCM.ImagingMeasurements, group))
    report.ContentSequence.append(_container(_QUALITATIVE, _evaluations(series, measurement, card, revision)))
    return report


def _container(name: Code, items: Sequence[ContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(name=name, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(items)
    return container


def _observer(card: Card) -> hd.sr.ObservationContext:
    """The device that observed: this product with this model (TID 1004)."""
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=provenance.device_uid(card),
        name=provenance.PRODUCT,
        manufacturer_name=provenance.MANUFACTURER,
        model_name=provenance.plain(f"{card.name} {card.version}"),
        serial_number=provenance.serial_number(card),
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)
    return hd.sr.ObservationContext(observer_device_context=observer)


def _measurement_group(series: Series, measurement: Measurement, card: Card, seg: Dataset) -> Sequence[ContentItem]:
    """The volume of the segment, and what limits it (TID 1411)."""
    tracking_id, tracking_uid = provenance.tracking(series, card)
    # ReferencedSegment.from_segmentation fails on a segmentation of one segment (highdicom 0.28).
    segment = hd.sr.ReferencedSegment(
        sop_class_uid=seg.SOPClassUID,
        sop_instance_uid=seg.SOPInstanceUID,
        segment_number=1,
        source_series=hd.sr.SourceSeriesForSegmentation(series.series_instance_uid),
    )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=tracking_uid, identifier=tracking_id),
        referenced_segment=segment,
        finding_type=provenance.PANCREAS,
        finding_sites=[hd.sr.FindingSite(provenance.PANCREAS)],
        measurements=[_volume(measurement, card)],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(codes.DCM.QualityFinding, _QUALITY[flag]) for flag in measurement.flags
        ],
    )


def _volume(measurement: Measurement, card: Card) -> hd.sr.Measurement:
    passes = [f"{name} {value}" for name, value in provenance.passes(card).items()]
    algorithm = AlgorithmIdentification(
        name=provenance.plain(card.name),
        version=provenance.plain(card.version),
        parameters=[f"weights SHA-256 {provenance.plain(card.sha256)}", *passes, f"{provenance.PRODUCT} {VERSION}"],
    )
    return hd.sr.Measurement(
        name=_VOLUME,
        value=round(measurement.volume_ml, 3),
        unit=_MILLILITRE,
        method=codes.DCM.SumOfSegmentedVoxelMethodForVolume,
        algorithm_id=algorithm,
    )


def _evaluations(series: Series, measurement: Measurement, card: Card, revision: Revision) -> list[ContentItem]:
    """What is said of the whole series in words, so that a viewer that shows no measurement groups shows it too."""
    finding = f"Pancreas {provenance.volume_words(measurement)}, measured automatically, not verified."
    comments = [finding, *(flag.meaning.replace("structure", "pancreas") for flag in measurement.flags)]
    if measurement.spread_ml is not None:
        dice = f", mean pairwise Dice {measurement.confidence:.2f}" if measurement.voxel_count else ""
        words = f"What the model's passes found differs by {measurement.spread_ml:.1f} mL (standard deviation){dice}."
        comments.append(words)
    if revision.number > 1:
        comments.append(f"Revision {revision.number}, as more images of the series came: earlier ones are superseded.")
    assumed = (*series.assumptions, *revision.assumptions)
    comments += [provenance.plain(f"Assumed: {one.text}", 1024) for one in assumed]
    comments.append(provenance.plain(f"{card.name} {card.version}: {card.statement}", 1024))
    texts = [TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=_CONTAINS) for text in comments]
    if Flag.NOTHING_FOUND not in measurement.flags:
        return texts
    return [CodeContentItem(name=provenance.PANCREAS, value=_NOT_DETECTED, relationship_type=_CONTAINS), *texts]

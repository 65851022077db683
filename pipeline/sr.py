"""The measurement as a DICOM Structured Report: Comprehensive 3D SR, TID 1500 Measurement Report (PS3.16)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import highdicom as hd
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CompositeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DateContentItem,
    NumContentItem,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from models.card import Card
from pipeline import VERSION, provenance
from pipeline.measure import Flag, Measurement
from pipeline.priors import NONE, Change, Prior, Priors, Verdict
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
_PERCENT = Code("%", "UCUM", "percent")
_CONTAINS = RelationshipTypeValues.CONTAINS
_PROPERTY = RelationshipTypeValues.HAS_PROPERTIES
_INFERRED = RelationshipTypeValues.INFERRED_FROM

QUALITY = {
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
"""How the report says what limits a measurement."""

# Not the standard's code for a volume: who looks for that finds the volume of this series and no other.
_EARLIER_VOLUME = Code("EARLIERVOLUME", provenance.CODING_SCHEME, "Volume at an earlier examination")
_CHANGE = Code("VOLUMECHANGE", provenance.CODING_SCHEME, "Change of volume since then")
_COMPARISON = Code("COMPARISON", provenance.CODING_SCHEME, "Comparison of the volumes")
_VERDICTS = {
    Verdict.WITHIN: Code("WITHINERROR", provenance.CODING_SCHEME, "Within measurement error"),
    Verdict.INDETERMINATE: Code("INDETERMINATE", provenance.CODING_SCHEME, "Indeterminate change"),
    Verdict.BEYOND: Code("BEYONDVARIABILITY", provenance.CODING_SCHEME, "Exceeds the expected variability"),
    Verdict.NOT_COMPARABLE: Code("NOTCOMPARABLE", provenance.CODING_SCHEME, "Not comparable"),
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
    priors: Priors = NONE,
) -> Dataset:
    """The measurement as an unverified report; the same arguments give the same bytes and the same UIDs.

    at: start of the analysis, time zone aware; gives Content Date and Time.
    seg: the segmentation that was measured; None where nothing was found, which the report then says with its reason
        instead of a volume.
    title: code value of a document title of CID 7021, a key of TITLES.
    revision: of the series; names the report that this one takes the place of (PS3.3 C.17.2) and what is missing.
    priors: the patient's earlier volumes; the reports that they stand in are evidence (PS3.3 C.17.2).
    Raises ValueError for another title, and where there is a SEG of nothing or no SEG of something.
    """
    if title not in TITLES:
        raise ValueError(f"report title {title!r} is none of {', '.join(TITLES)} (CID 7021)")
    if (seg is None) != (Flag.NOTHING_FOUND in measurement.flags):
        raise ValueError("a report needs the SEG of what was found, and no SEG where nothing was found")
    local = provenance.local_time(series, at)
    evidence = [provenance.stand_in(instance) for instance in series.instances]
    evidence += [provenance.stand_in_for(prior.report) for prior in priors.shown if prior.report]
    result = hd.sr.Comprehensive3DSR(
        evidence=[*evidence, *([seg] if seg else [])],
        content=_report(series, measurement, card, seg, TITLES[title], revision=revision, priors=priors),
        series_instance_uid=provenance.report_uid(series, card, f"sr-series {title}", revision, priors),
        series_number=provenance.series_number(series, 2),
        sop_instance_uid=provenance.report_uid(series, card, f"sr {title}", revision, priors),
        instance_number=revision.number,
        is_complete=True,
        is_verified=False,
        series_description=f"Pancreas {provenance.volume_words(measurement)} (AI report, unverified{revision.suffix})",
        previous_versions=_predecessors(revision, priors),
        content_date=local.date(),
        content_time=local.time(),
        series_date=local.date(),
        series_time=local.time(),
        **provenance.equipment(card),
    )
    provenance.complete(result, series, card, at)
    flagged = any(QUALITY[flag].scheme_designator == provenance.CODING_SCHEME for flag in measurement.flags if seg)
    if flagged or priors.volumes:
        result.CodingSchemeIdentificationSequence = [provenance.coding_scheme()]
    return result


def _predecessors(revision: Revision, priors: Priors) -> list[Dataset] | None:
    """The report before, in the form of which highdicom makes Predecessor Documents Sequence."""
    before = priors.predecessor or revision.predecessor
    return [provenance.stand_in_for(before)] if before else None


def _report(
    series: Series,
    measurement: Measurement,
    card: Card,
    seg: Dataset | None,
    title: Code,
    *,
    revision: Revision,
    priors: Priors,
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
    if priors.volumes:
        earlier = [*_in_words(priors.sentences), *(_earlier(one) for one in priors.shown)]
        report.ContentSequence.append(_container(codes.DCM.PreviousFindings, earlier))
    said = _evaluations(series, measurement, card, revision, priors)
    report.ContentSequence.append(_container(_QUALITATIVE, said))
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
            hd.sr.QualitativeEvaluation(codes.DCM.QualityFinding, QUALITY[flag]) for flag in measurement.flags
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


def _earlier(prior: Prior) -> ContentItem:
    """A volume of before, coded: TID 1500 is extensible, and has no place of its own for it."""
    day, model = prior.acquired_at[:8], provenance.plain(prior.model)
    item = NumContentItem(_EARLIER_VOLUME, round(prior.volume_ml, 3), _MILLILITRE, relationship_type=_CONTAINS)
    item.ContentSequence = ContentSequence(
        [
            DateContentItem(codes.DCM.AcquisitionDate, day, relationship_type=_PROPERTY),
            TextContentItem(codes.DCM.AlgorithmName, model, relationship_type=_PROPERTY),
        ]
    )
    if prior.is_lower_bound:
        quality = QUALITY[Flag.TOUCHES_BORDER]
        item.ContentSequence.append(CodeContentItem(codes.DCM.QualityFinding, quality, relationship_type=_PROPERTY))
    if prior.change:
        item.ContentSequence.extend(_changed(prior.change))
    if prior.report:
        reference = (prior.report.sop_class_uid, prior.report.sop_instance_uid)
        name = codes.DCM.PriorReportForCurrentPatient
        item.ContentSequence.append(CompositeContentItem(name, *reference, relationship_type=_INFERRED))
    return item


def _changed(change: Change) -> list[ContentItem]:
    figures = ((change.ml, _MILLILITRE), (change.percent, _PERCENT))
    changes = [NumContentItem(_CHANGE, round(value, 3), unit, relationship_type=_PROPERTY) for value, unit in figures]
    return [*changes, CodeContentItem(_COMPARISON, _VERDICTS[change.verdict], relationship_type=_PROPERTY)]


def _in_words(sentences: Sequence[str]) -> list[ContentItem]:
    """For viewers that show of a number only the number, and of what hangs below it nothing."""
    texts = [provenance.plain(sentence, 1024) for sentence in sentences]
    return [TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=_CONTAINS) for text in texts]


def _evaluations(
    series: Series, measurement: Measurement, card: Card, revision: Revision, priors: Priors
) -> list[ContentItem]:
    """What is said of the whole series in words, so that a viewer that shows no measurement groups shows it too."""
    finding = f"Pancreas {provenance.volume_words(measurement)}, measured automatically, not verified."
    comments = [finding, *(flag.meaning.replace("structure", "pancreas") for flag in measurement.flags)]
    if measurement.spread_ml is not None:
        dice = f", mean pairwise Dice {measurement.confidence:.2f}" if measurement.voxel_count else ""
        words = f"What the model's passes found differs by {measurement.spread_ml:.1f} mL (standard deviation){dice}."
        comments.append(words)
    if revision.number > 1:
        comments.append(f"Revision {revision.number}, as more images of the series came: earlier ones are superseded.")
    if priors.edition > 1:
        comments.append(
            "This report takes the place of the one before, since the model or the earlier volumes changed."
        )
    assumed = (*series.assumptions, *revision.assumptions)
    comments += [f"Assumed: {one.text}" for one in assumed]
    comments.append(f"{card.name} {card.version}: {card.statement}")
    texts = _in_words(comments)
    if Flag.NOTHING_FOUND not in measurement.flags:
        return texts
    return [CodeContentItem(name=provenance.PANCREAS, value=_NOT_DETECTED, relationship_type=_CONTAINS), *texts]

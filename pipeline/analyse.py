"""The story: one series in, findings out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydicom import Dataset

from models.bundle import Model
from models.card import Card
from pipeline import VERSION
from pipeline.assumptions import Assumption
from pipeline.errors import Exhausted, UnfitSeries
from pipeline.infer import InferenceOptions, predict
from pipeline.measure import Flag, Measurement, measure
from pipeline.page import Content
from pipeline.pdf import to_pdf
from pipeline.postprocess import to_segmentation
from pipeline.preprocess import to_tensor
from pipeline.priors import NONE, Priors
from pipeline.provenance import FIRST, Revision
from pipeline.seg import to_seg
from pipeline.series import Series, read_volume
from pipeline.sr import to_sr
from pipeline.volume import Segmentation, Volume

_OF_THE_MODEL = ("name", "version", "sha256", "members", "flips", "repeatability_percent", "statement")


@dataclass(frozen=True)
class Options:
    """How to analyse.

    at: start of the analysis, with a time zone; the results' Content Date and Time. device, batch_size, progress: as in
    `InferenceOptions`. report_title: code value of the SR's document title, of CID 7021. revision: which measurement of
    the series this is, and what is known to be missing of it. recall: told what was measured, it says what is known of
    the patient from before.
    """

    at: datetime
    device: str = "cpu"
    batch_size: int = 1
    report_title: str = "126001"
    progress: Callable[[float], None] | None = None
    revision: Revision = FIRST
    recall: Callable[[Measurement], Priors] = lambda _: NONE

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("the time of an analysis needs a time zone")
        if self.batch_size < 1:
            raise ValueError("batch_size must be 1 or more")


@dataclass(frozen=True, eq=False)
class Findings:
    """All that one analysis found. seg is None where the structure was not found; sr then gives the reason.

    assumptions: what was taken for granted about the series, corrected or left out.
    """

    volume: Volume
    segmentation: Segmentation
    measurement: Measurement
    seg: Dataset | None
    sr: Dataset
    card: Card
    assumptions: tuple[Assumption, ...]
    priors: Priors


def analyse(series: Series, model: Model, options: Options) -> Findings:
    """Measure the model's target in a series and write it down as DICOM SEG and SR.

    Raises a kind of `Refused` where the series is not fit for the model, `Exhausted` where memory runs out. The same
    arguments give the same findings, to the UIDs and the bytes of the results.
    """
    check_fit(series.grid.shape[0], model.card)
    volume = read_volume(series)
    segmentation, measurement = segment(volume, model, options)
    card, at, revision = model.card, options.at, options.revision
    if revision.shortfall:
        measurement = replace(measurement, flags=(*measurement.flags, Flag.INCOMPLETE_SERIES))
    found = measurement.voxel_count > 0
    seg = to_seg(series, segmentation, card, at, measurement=measurement, revision=revision) if found else None
    priors = options.recall(measurement)
    sr = to_sr(series, measurement, card, at, seg=seg, title=options.report_title, revision=revision, priors=priors)
    assumptions = (*series.assumptions, *revision.assumptions)
    return Findings(volume, segmentation, measurement, seg, sr, card, assumptions, priors)


def write_page(series: Series, findings: Findings, options: Options) -> Dataset:
    """What was found in the series as an Encapsulated PDF of one page, for viewers that show no Structured Reports."""
    assumed = tuple(f"Assumed: {one.text}" for one in findings.assumptions)
    measured = (findings.volume, findings.segmentation, findings.measurement)
    content = Content(*measured, findings.card, findings.priors, assumed)
    sources = [one for one in (findings.seg, findings.sr) if one is not None]
    return to_pdf(series, content, options.at, sources=sources, revision=options.revision)


def segment(volume: Volume, model: Model, options: Options) -> tuple[Segmentation, Measurement]:
    """Segment and measure a volume from anywhere, DICOM or not; raises as `analyse` does."""
    check_fit(volume.grid.shape[0], model.card)
    try:
        tensor = to_tensor(volume, model.card)
        inference = InferenceOptions(options.device, options.batch_size, options.progress)
        predicted = predict(tensor, model, inference)
        segmentation = to_segmentation(predicted.probabilities, model.card, volume.grid, predicted.agreement)
    except MemoryError as error:
        raise Exhausted(f"out of memory on the host with {volume.hounsfield.shape} voxels") from error
    return segmentation, measure(segmentation, volume)


def check_fit(slices: int, card: Card) -> None:
    """Raise `UnfitSeries` where a series has too few slices for the model."""
    if slices < card.minimum_slices:
        raise UnfitSeries(f"too few slices: {slices} where {card.name} needs {card.minimum_slices} or more")


def describe(measurement: Findings | Measurement, card: Card | None = None) -> dict[str, Any]:
    """What was found, and by what, in JSON's types; holds nothing that identifies a patient.

    Of `Findings` also where the results are; a bare measurement, which no DICOM results exist of, needs its card.
    """
    if isinstance(measurement, Findings):
        findings = measurement
        return describe(findings.measurement, findings.card) | {
            "slices_rows_columns": list(findings.volume.grid.shape),
            "shear_mm": [round(float(step), 6) for step in findings.volume.grid.shear_mm],
            "spacing_mm": [round(float(step), 6) for step in findings.volume.grid.geometry.spacing],
            "seg_sop_instance_uid": str(findings.seg.SOPInstanceUID) if findings.seg else None,
            "sr_sop_instance_uid": str(findings.sr.SOPInstanceUID),
            "assumptions": [{"kind": str(one.kind), "text": one.text} for one in findings.assumptions],
        }
    if card is None:
        raise ValueError("a measurement alone does not say by which model it was made")
    return {
        "structure": card.labels[card.target],
        "found": measurement.voxel_count > 0,
        "volume_ml": round(measurement.volume_ml, 3) if measurement.voxel_count else None,
        "voxel_count": measurement.voxel_count,
        "voxel_volume_mm3": measurement.voxel_volume_mm3,
        "confidence": round(measurement.confidence, 4),
        "confidence_kind": str(measurement.confidence_kind),
        "spread_ml": None if measurement.spread_ml is None else round(measurement.spread_ml, 3),
        "mean_hu": None if measurement.mean_hu is None else round(measurement.mean_hu, 2),
        "slice_count": measurement.slice_count,
        "components": measurement.components,
        "left_out_ml": round(measurement.left_out_ml, 3),
        "flags": {str(flag): flag.meaning for flag in measurement.flags},
        "model": {key: getattr(card, key) for key in _OF_THE_MODEL},
        "pipeline_version": VERSION,
    }

"""What the node would do with the series below a folder, and why; nothing is stored and nothing is sent."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import UID

from dicomnode.dimse import STORED_SOP_CLASSES
from dicomnode.files import sort_files
from dicomnode.headers import image_facts, missing_identifier, read_series, text
from dicomnode.routing import ImageFacts, SeriesFacts, Verdict, describe_mm
from dicomnode.selection import Selection, select
from pipeline.errors import UNREADABLE

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType",
    "ImageOrientationPatient",
]  # fmt: skip


@dataclass(frozen=True)
class InspectedSeries:
    """A series, its facts and the verdict on it. Nothing of it names the patient."""

    study_instance_uid: str
    series_instance_uid: str
    instances: int
    facts: SeriesFacts
    verdict: Verdict
    rule: str

    def describe(self) -> dict[str, Any]:
        """As JSON knows it."""
        facts = self.facts
        shown = ("description", "protocol", "body_part", "kernel", "manufacturer", "thickness_mm", "slices", "contrast")
        return {
            "study_instance_uid": self.study_instance_uid,
            "series_instance_uid": self.series_instance_uid,
            "instances": self.instances,
            **{name: getattr(facts, name) for name in shown},
            "phase": facts.phase,
            "image_types": sorted("\\".join(sorted(values)) for values in facts.image_types),
            "analysed": not self.verdict.reason,
            "reason": self.verdict.reason,
            "rule": self.rule,
            "explanation": list(self.verdict.misses),
        }

    def lines(self) -> Iterator[str]:
        """As people read it."""
        facts = self.facts
        uid = self.series_instance_uid
        yield f"series {'...' + uid[-12:] if uid else 'without a UID'}  {facts.description or '(no description)'}"
        agent = "contrast agent recorded" if facts.contrast else "no contrast agent recorded"
        yield (
            f"  {facts.slices} axial slices, thickness {describe_mm(facts.thickness_mm)}, phase {facts.phase}, "
            f"kernel {facts.kernel or 'unknown'}, {agent}"
        )
        by = f" by rule {self.rule!r}" if self.rule else ""
        yield f"  not analysed: {self.verdict.reason}" if self.verdict.reason else f"  ANALYSED{by}"
        for miss in self.verdict.misses:
            yield f"    {miss}"


@dataclass(frozen=True)
class Inspection:
    """All series below a folder; not_dicom, unreadable: how many files are none, or are damaged."""

    series: tuple[InspectedSeries, ...]
    not_dicom: int
    unreadable: int


@dataclass
class _Found:
    images: list[tuple[Path, ImageFacts]] = field(default_factory=list)
    not_taken: str = ""


def inspect(path: Path, selection: Selection) -> Inspection:
    """Look at every DICOM file at or below the path. Raises Refused where there is none."""
    files, not_dicom = sort_files(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on values that the verdict does not rest on
        studies, unreadable = _group(files)
        series = [s for uid, study in sorted(studies.items()) for s in _judge(uid, study, selection)]
    return Inspection(tuple(series), not_dicom, unreadable)


def _group(files: list[Path]) -> tuple[dict[str, dict[str, _Found]], int]:
    """Series by study and UID, and the number of files that cannot be read."""
    studies: dict[str, dict[str, _Found]] = {}
    unreadable = 0
    for file in files:
        try:
            header = dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
            study, series = text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID")
            facts, complaint = image_facts(header), missing_identifier(header)
            is_empty = not header  # not even one attribute: a damaged or cut file
        except UNREADABLE:
            is_empty = True
        if is_empty:
            unreadable += 1
            continue
        found = studies.setdefault(study, {}).setdefault(series, _Found())
        found.images.append((file, facts))
        if not complaint and facts.sop_class_uid not in STORED_SOP_CLASSES:
            complaint = f"the listener does not accept {UID(facts.sop_class_uid).name}"
        found.not_taken = found.not_taken or complaint
    return studies, unreadable


def _judge(study_instance_uid: str, study: dict[str, _Found], selection: Selection) -> Iterator[InspectedSeries]:
    verdicts = select({uid: found.images for uid, found in study.items() if not found.not_taken}, selection)
    for uid, found in study.items():
        verdict = verdicts.get(uid) or Verdict(f"not taken in: {found.not_taken}")
        rule = "" if verdict.rule is None else selection.rules[verdict.rule].name
        facts = read_series(found.images)
        yield InspectedSeries(study_instance_uid, uid, len(found.images), facts, verdict, rule)

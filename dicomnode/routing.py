"""Which series are analysed, and why not: the checks that are built in, then the rules of the site. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dicomnode.phases import Phase, phase_of
from dicomnode.sections import RuleAction, RuleSettings
from pipeline.image_types import find_no_slice

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2.1"
MULTI_FRAME_STORAGES = frozenset((ENHANCED_CT_IMAGE_STORAGE, "1.2.840.10008.5.1.4.1.1.2.2"))
"""Enhanced CT, and Legacy Converted Enhanced CT."""
_PATTERNS = ("description", "protocol", "body_part", "kernel", "manufacturer")


@dataclass(frozen=True)
class ImageFacts:
    """What routing looks at, for one instance: texts as received (ImageType and cosines joined by backslashes)."""

    sop_class_uid: str
    modality: str
    image_type: str
    image_orientation: str


@dataclass(frozen=True)
class SeriesFacts:
    """What rules look at. Texts: empty where missing or unreadable; numbers: None.

    image_types: the values of ImageType of each kind of slice. slices: how many are axial, counting frames.
    scanner: Manufacturer's Model Name.
    thickness_mm: SliceThickness as the scanner wrote it; the measurement itself goes by positions.
    contrast: an agent is recorded (PS3.3 C.7.6.4).
    """

    modality: str = ""
    image_types: frozenset[frozenset[str]] = frozenset()
    description: str = ""
    protocol: str = ""
    body_part: str = ""
    kernel: str = ""
    manufacturer: str = ""
    scanner: str = ""
    thickness_mm: float | None = None
    slices: int = 0
    contrast: bool = False
    series_number: int | None = None

    @property
    def phase(self) -> Phase:
        """The contrast phase by the words of the texts."""
        return phase_of(self.description, self.protocol, self.contrast)


@dataclass(frozen=True)
class Verdict:
    """Whether a series is analysed.

    reason: why not; empty: it is. rule: position of the rule that decided, None where none did.
    misses: of each rule before that one, which of its conditions do not hold.
    """

    reason: str
    rule: int | None = None
    misses: tuple[str, ...] = ()


def refuse_series(images: Sequence[ImageFacts], minimum_slices: int) -> str:
    """Return why a series can never be analysed, whatever the rules of the site, or an empty text: it can.

    It must be CT; localizers and projections inside the series do not count as slices; those left must be axial
    (the slice normal nearest to the body axis) and at least `minimum_slices`; a multi-frame object is enough.
    """
    modalities = {image.modality for image in images}
    if modalities != {"CT"}:
        return f"modality is {', '.join(sorted(m or 'missing' for m in modalities))}, not CT"
    slices = [image for image in images if is_slice(image)]
    if not slices:
        return "only localizer, projection or reformatted images"
    if any(image.sop_class_uid in MULTI_FRAME_STORAGES for image in slices):
        return ""
    axial = [image for image in slices if is_axial(image.image_orientation)]
    if not axial:
        return "slices are not axial"
    if len(axial) < minimum_slices:
        return f"{len(axial)} axial slices, fewer than {minimum_slices}"
    return ""


def judge_series(facts: SeriesFacts, rules: Sequence[RuleSettings]) -> Verdict:
    """Ask the rules in turn: the first whose conditions all hold decides.

    Without any rule the series is analysed; where there are rules and none holds, it is not.
    """
    misses: list[str] = []
    for position, rule in enumerate(rules):
        unmet = [*_unmet_texts(rule, facts), *_unmet_image_types(rule, facts), *_unmet_numbers(rule, facts)]
        if not unmet:
            reason = f"rule {rule.name!r} skips it" if rule.action is RuleAction.SKIP else ""
            return Verdict(reason, position, tuple(misses))
        misses.append(f"rule {rule.name!r}: {'; '.join(unmet)}")
    return Verdict("no rule matches" if rules else "", None, tuple(misses))


def _unmet_texts(rule: RuleSettings, facts: SeriesFacts) -> Iterator[str]:
    if rule.modality is not None and rule.modality != facts.modality:
        yield f"modality {facts.modality!r} is not {rule.modality!r}"
    for name in _PATTERNS:
        pattern, text = getattr(rule, name), getattr(facts, name)
        if pattern is not None and not re.search(pattern, text, re.IGNORECASE):
            yield f"{name.replace('_', ' ')} {text!r} does not match {pattern!r}"


def _unmet_image_types(rule: RuleSettings, facts: SeriesFacts) -> Iterator[str]:
    for value in rule.image_type:
        if not facts.image_types or any(value.upper() not in values for values in facts.image_types):
            yield f"not every slice has {value!r} in ImageType"
    for value in rule.not_image_type:
        if any(value.upper() in values for values in facts.image_types):
            yield f"slices have {value!r} in ImageType"


def _unmet_numbers(rule: RuleSettings, facts: SeriesFacts) -> Iterator[str]:
    if rule.thickness_mm is not None and not rule.thickness_mm.holds(facts.thickness_mm):
        yield f"thickness {describe_mm(facts.thickness_mm)} is not {rule.thickness_mm} mm"
    if rule.slices is not None and not rule.slices.holds(facts.slices):
        yield f"{facts.slices} slices are not {rule.slices}"
    if rule.contrast is not None and rule.contrast != facts.contrast:
        yield f"a contrast agent is {'' if facts.contrast else 'not '}recorded"
    if rule.phase and facts.phase not in rule.phase:
        yield f"phase {facts.phase} is not {' or '.join(rule.phase)}"


def describe_mm(length_mm: float | None) -> str:
    """A length for people."""
    return "unknown" if length_mm is None else f"{length_mm:.4g} mm"


def is_axial(image_orientation: str) -> bool:
    """Whether the normal of ImageOrientationPatient (PS3.3 C.7.6.2.1.1) lies nearest to the body axis.

    A missing or illegal value is left for the pipeline to refuse with its own, better reason.
    """
    try:
        x1, y1, z1, x2, y2, z2 = (float(text) for text in image_orientation.split("\\"))
    except ValueError:
        return True
    normal = (y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2)
    return abs(normal[2]) >= max(abs(normal[0]), abs(normal[1]))


def is_slice(image: ImageFacts) -> bool:
    """Whether the image may be a slice of the volume, by the same list as the pipeline's."""
    return find_no_slice(image.image_type.split("\\")) is None


def image_type_values(image: ImageFacts) -> frozenset[str]:
    """The values of ImageType, in capitals."""
    return frozenset(value.strip().upper() for value in image.image_type.split("\\"))

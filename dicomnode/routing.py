"""Which series are analysed, and why not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2.1"
_PROJECTIONS = frozenset({"MIP", "MINIP", "MPR", "VRT", "SSD", "PROJECTION IMAGE", "VOLUME RENDERED"})


@dataclass(frozen=True)
class ImageFacts:
    """What routing looks at, for one instance: texts as received (ImageType and cosines joined by backslashes)."""

    sop_class_uid: str
    modality: str
    image_type: str
    image_orientation: str


@dataclass(frozen=True)
class RoutingRule:
    """What a series must have to be analysed. minimum_slices: a multi-frame object counts as enough."""

    minimum_slices: int


def refuse_series(images: list[ImageFacts], rule: RoutingRule) -> str:
    """Return why a series is not analysed, or an empty text: it is.

    It must be CT; localizers and projections inside the series do not count as slices; those left must be axial
    (the slice normal nearest to the body axis) and enough.
    """
    modalities = {image.modality for image in images}
    if modalities != {"CT"}:
        return f"modality is {', '.join(sorted(m or 'missing' for m in modalities))}, not CT"
    slices = [image for image in images if is_slice(image)]
    if not slices:
        return "only localizer, projection or reformatted images"
    if any(image.sop_class_uid == ENHANCED_CT_IMAGE_STORAGE for image in slices):
        return ""
    axial = [image for image in slices if is_axial(image.image_orientation)]
    if not axial:
        return "slices are not axial"
    if len(axial) < rule.minimum_slices:
        return f"{len(axial)} axial slices, fewer than {rule.minimum_slices}"
    return ""


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
    """Whether the image is a slice of the volume, not a localizer or a projection (ImageType, PS3.3 C.7.6.1.1.2)."""
    values = {value.strip().upper() for value in image.image_type.split("\\")}
    return "LOCALIZER" not in values and not values & _PROJECTIONS

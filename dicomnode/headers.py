"""What rules look at, read from the headers of stored files; damage in a header never raises."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue

from dicomnode.arrivals import Labels, credible_count
from dicomnode.routing import MULTI_FRAME_STORAGES, ImageFacts, SeriesFacts, image_type_values, is_axial, is_slice
from pipeline.errors import UNREADABLE

_TRIES = 3
_LONGEST_META, _GROUP_LENGTH = 1 << 16, b"\x02\0\0\0"
_LONGEST = 200  # characters; VR PN has 64 for each of its three groups
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = [
    "SpecificCharacterSet", "Modality", "SeriesDescription", "ProtocolName", "BodyPartExamined", "ConvolutionKernel",
    "Manufacturer", "ManufacturerModelName", "SliceThickness", "SeriesNumber", "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
]  # fmt: skip
COUNT_TAGS = ("NumberOfSeriesRelatedInstances", "InConcatenationTotalNumber", "ImagesInAcquisition")
"""Where a header may say of how many instances its own is one."""
LABEL_TAGS = ("PatientName", "PatientSex", "PatientBirthDate", "StudyDescription", "SeriesDescription")
"""What people recognise a series by."""
_NO_AGENT = frozenset(
    ("NO", "NON", "NONE", "NOT", "NIL", "N", "W/O", "WITHOUT", "OHNE", "KEIN", "KEINE", "NEIN", "SANS", "AUCUN", "0")
)


def text(header: Dataset, keyword: str) -> str:
    """The value as text, values joined by backslashes, without padding; missing is empty. Raises one of UNREADABLE."""
    value = header.get(keyword)
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join("" if part is None else str(part) for part in parts).replace("\0", "").strip()


def file_meta(blob: bytes) -> FileMetaDataset:
    """The file meta information (PS3.10 7.1). Raises one of UNREADABLE.

    Also where its length is not what it says: by that the data set behind it is found, and known again.
    """
    stream = BytesIO(blob[:_LONGEST_META])
    read_preamble(stream, force=False)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    if blob[132:136] != _GROUP_LENGTH or stream.tell() != 144 + int.from_bytes(blob[140:144], "little"):
        raise InvalidDicomError("the file meta information is not as long as it says")
    return FileMetaDataset(meta)


def missing_identifier(header: Dataset) -> str:
    """Why the listener does not take the instance in, or an empty text. Raises one of UNREADABLE."""
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        uid = text(header, keyword)
        if not uid or len(uid) > 64:
            return f"{keyword} is missing or longer than 64 characters"
    return ""


def labels(header: Dataset) -> Labels:
    """What people recognise a series by, of one instance; what cannot be read is empty."""
    return Labels(*(_plain(header, keyword) for keyword in LABEL_TAGS))


def image_facts(header: Dataset) -> ImageFacts:
    """What routing looks at, of one instance. Raises one of UNREADABLE."""
    orientation = text(header, "ImageOrientationPatient")
    modality, image_type = text(header, "Modality")[:16], text(header, "ImageType")
    return ImageFacts(text(header, "SOPClassUID"), modality, image_type, orientation)


def announced_count(header: Dataset) -> int | None:
    """How many instances the header says that its series has, or None.

    None of its sources is meant for that alone: Images in Acquisition (PS3.3 C.8.2.1) may count several series of one
    acquisition, or be left at what was planned; of a multi-frame object it counts frames.
    """
    is_multi_frame = text(header, "SOPClassUID") in MULTI_FRAME_STORAGES
    keywords = COUNT_TAGS[:-1] if is_multi_frame else COUNT_TAGS
    return credible_count(number for keyword in keywords if (number := _whole(_plain(header, keyword))) is not None)


def read_series(images: Sequence[tuple[Path, ImageFacts]]) -> SeriesFacts:
    """The facts of a series: the images together, and the header of one slice.

    That slice is the first readable one in the order of the paths, so that the order of arrival does not matter.
    """
    slices = sorted((pair for pair in images if is_slice(pair[1]) and is_axial(pair[1].image_orientation)), key=_path)
    header = next((header for path, image in slices[:_TRIES] if (header := _read(path, image)) is not None), Dataset())
    return SeriesFacts(
        modality=slices[0][1].modality if slices else "",
        image_types=frozenset(image_type_values(image) for _, image in slices),
        description=_plain(header, "SeriesDescription"),
        protocol=_plain(header, "ProtocolName"),
        body_part=_plain(header, "BodyPartExamined") or _anatomy(header),
        kernel=_first(header, "CTReconstructionSequence", "ConvolutionKernel"),
        manufacturer=_plain(header, "Manufacturer"),
        scanner=_plain(header, "ManufacturerModelName"),
        thickness_mm=_length(_first(header, "PixelMeasuresSequence", "SliceThickness")),
        slices=sum(_frames(path) if _is_enhanced(image) else 1 for path, image in slices),
        contrast=_has_contrast(header),
        series_number=_whole(_plain(header, "SeriesNumber")),
    )


def _path(pair: tuple[Path, ImageFacts]) -> Path:
    return pair[0]


def _is_enhanced(image: ImageFacts) -> bool:
    return image.sop_class_uid in MULTI_FRAME_STORAGES


def _read(path: Path, image: ImageFacts) -> Dataset | None:
    tags = [*_TAGS, *_GROUPS] if _is_enhanced(image) else _TAGS
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except UNREADABLE:
        return None


def _frames(path: Path) -> int:
    try:
        return max(1, int(dcmread(path, stop_before_pixels=True, specific_tags=["NumberOfFrames"]).NumberOfFrames))
    except UNREADABLE:
        return 1


def _plain(header: Dataset, keyword: str) -> str:
    """The text in one printable line of bounded length: it goes into reasons, logs and onto terminals."""
    try:
        received = text(header, keyword)
    except UNREADABLE:
        return ""
    return "".join(c if c.isprintable() else " " for c in " ".join(received.split()))[:_LONGEST]


def _inside(header: Dataset, sequence: str) -> Iterator[Dataset]:
    try:
        yield from header.get(sequence) or ()
    except UNREADABLE:
        return


def _macros(header: Dataset, macro: str) -> Iterator[Dataset]:
    """A functional group macro of a multi-frame object (PS3.3 C.7.6.16): shared, else that of the first frame."""
    for groups in _GROUPS:
        for group in _inside(header, groups):
            yield from _inside(group, macro)
            break


def _first(header: Dataset, macro: str, keyword: str) -> str:
    """The attribute, wherever the object keeps it."""
    return next((found for item in (header, *_macros(header, macro)) if (found := _plain(item, keyword))), "")


def _anatomy(header: Dataset) -> str:
    """What an Enhanced object says instead of BodyPartExamined (PS3.3 C.7.6.16.2.8)."""
    regions = (
        code for item in _macros(header, "FrameAnatomySequence") for code in _inside(item, "AnatomicRegionSequence")
    )
    return next((meaning for code in regions if (meaning := _plain(code, "CodeMeaning"))), "")


def _has_contrast(header: Dataset) -> bool:
    """By ContrastBolusAgent (PS3.3 C.7.6.4), in Enhanced objects by the usage macro or the agents (C.7.6.4b)."""
    if agent := _plain(header, "ContrastBolusAgent").upper().replace("-", " ").split():
        return agent[0] not in _NO_AGENT
    if used := [
        _plain(item, "ContrastBolusAgentAdministered") for item in _macros(header, "ContrastBolusUsageSequence")
    ]:
        return "YES" in used
    return any(True for _ in _inside(header, "ContrastBolusAgentSequence"))


def _length(value: str) -> float | None:
    try:
        length = float(value)
    except ValueError:
        return None
    return length if math.isfinite(length) and length > 0 else None


def _whole(value: str) -> int | None:
    try:
        return int(value)
    except ValueError:
        return None

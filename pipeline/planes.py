"""CT image planes: one frame of one file, where it lies, and how its stored values are scaled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.datadict import dictionary_description, dictionary_has_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES
from pipeline.errors import UNREADABLE, NotASlice, NotImageData, Undecodable, UnfitGeometry, UnfitSeries
from pipeline.image_types import NO_SLICES, find_no_slice
from pipeline.limits import ClippedReader, Excessive, check_file

MULTI_FRAME_SOP_CLASSES = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SOP_CLASSES = (CTImageStorage, *MULTI_FRAME_SOP_CLASSES)

_NOT_HOUNSFIELD = {"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"}
"""Rescale Types (PS3.3 C.11.1.1.2) whose values are certainly not CT numbers."""

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
"""What SEG and SR refer to: each instance has them, or no result could be written."""

MARKS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "AcquisitionDateTime",
    "ConvolutionKernel",
    "KVP",
    "ImageType",
)
"""Attributes that tell the acquisitions or phases of one series apart, the first that does so decides.

AcquisitionDateTime stands for AcquisitionDate and AcquisitionTime, too; of a frame, the attributes of its functional
groups that mean the same (PS3.3 C.7.6.16.2.2, C.8.15.3)."""

_FRAME_MARKS = {
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "TemporalPositionIndex": ("FrameContentSequence", "TemporalPositionIndex"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "AcquisitionDateTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "ImageType": ("CTImageFrameTypeSequence", "FrameType"),
}

_LONGEST_SIDE = 4096
_MOST_FRAMES = 1 << 16
_LONGEST_NAME = 24


@dataclass(frozen=True)
class Plane:
    """One image plane of a CT series, as its file describes it (PS3.3 C.7.6.2, C.8.2.1; functional groups C.7.6.16.2).

    frame: index in the file, from 0. orientation: unit row then column cosines, orthogonal. position: centre of the
    first voxel, mm. spacing_mm: between rows, between columns. HU = slope * stored + intercept; stored values within
    padding (both ends included) are no image. marks: of MARKS, those that the file gives, as text.
    """

    path: Path
    transfer_syntax: str
    frame: int
    name: str
    rows: int
    columns: int
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    marks: Mapping[str, str]

    @property
    def acquired_at(self) -> str:
        """Date and time of the acquisition as DICOM writes them, which sorts; empty where the file has none."""
        return self.marks.get("AcquisitionDateTime", "")


@dataclass(frozen=True, eq=False)
class CTFile:
    """A CT file: its attributes without the pixel data, its planes in the order of the file.

    unreadable: attributes whose value could not be read, which are as good as absent: "KVP (0018,0060)".
    """

    instance: Dataset
    planes: tuple[Plane, ...]
    unreadable: tuple[str, ...]


def read_instance(path: Path) -> CTFile:
    """Read a CT file.

    Raises a kind of `Refused` that names the file and what is wrong: `NotASlice` where it is no CT image or one of
    another kind, else no DICOM, truncated, a transfer syntax that is not read, an attribute that is missing or makes no
    sense.
    """
    try:
        return _read_instance(path)
    except UNREADABLE as error:  # pydicom converts values when they are asked for, and fails as it meets damage
        raise NotImageData(f"{path.name}: a damaged or truncated DICOM file") from error


def _read_instance(path: Path) -> CTFile:
    instance = _read(path)
    unreadable = tuple(_drop_unreadable(instance))
    name = _name(instance, path)
    _check_class(instance, name)
    for keyword in UIDS:
        _check_uid(instance, keyword, name)
    _check_pixel_data(instance, name)
    del instance["PixelData"]  # the planes decode from the file: a series of 2,000 slices must not lie in memory twice
    headers = enumerate(_frame_headers(instance, name))
    return CTFile(instance, tuple(_plane(header, instance, path, frame) for frame, header in headers), unreadable)


def _name(instance: Dataset, path: Path) -> str:
    """What a technologist finds the image by: its number, and the file; of a digest as its name the end is enough."""
    file = path.name if len(path.name) <= _LONGEST_NAME else f"…{path.name[-12:]}"
    number = str(instance.get("InstanceNumber") or "").strip()
    return f"image {number} ({file})" if number.isdecimal() else file


def _check_uid(instance: Dataset, keyword: str, name: str) -> None:
    value = instance.get(keyword)
    if not value:
        raise UnfitSeries(f"{name}: {describe_attribute(keyword)} is missing")
    if not isinstance(value, str) or len(value) > 64 or set(value) - set("0123456789."):
        raise UnfitSeries(f"{name}: {describe_attribute(keyword)} is not a UID")


def describe_attribute(keyword: str) -> str:
    """Name and tag of an attribute: "Pixel Spacing (0028,0030)"."""
    return _describe_tag(BaseTag(tag_for_keyword(keyword) or 0))


def _describe_tag(tag: BaseTag) -> str:
    name = dictionary_description(tag) if dictionary_has_tag(tag) else "an attribute"
    return f"{name} ({tag.group:04X},{tag.element:04X})"


def _read(path: Path) -> Dataset:
    try:
        check_file(path.read_bytes())
        with ClippedReader(path) as file:
            return pydicom.dcmread(file)
    except Excessive as error:
        raise NotImageData(f"{path.name}: {error}") from error
    except InvalidDicomError as error:
        raise NotImageData(f"{path.name}: not a DICOM file") from error
    except OSError as error:
        raise NotImageData(f"{path.name}: cannot be read ({error.strerror or error})") from error


def _drop_unreadable(instance: Dataset) -> Iterator[str]:
    """Delete attributes whose value does not fit their VR, and name them: what nobody can read is as good as absent.

    The values are tried and not kept: what results take over from the source must stay as it came, byte for byte.
    """
    for tag in list(instance.keys()):
        element = instance.get_item(tag)
        try:
            if isinstance(element, RawDataElement):
                convert_raw_data_element(element, ds=instance)
        except UNREADABLE:
            del instance[tag]
            yield _describe_tag(tag)


def _check_class(instance: Dataset, name: str) -> None:
    _check_uid(instance, "SOPClassUID", name)
    sop_class = UID(instance.SOPClassUID)
    if sop_class not in SOP_CLASSES:
        raise NotASlice(name, f"{sop_class.name} is not a CT image")
    syntax = instance.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise NotImageData(f"{name}: {describe_attribute('TransferSyntaxUID')} is missing")
    if syntax not in DECODABLE_TRANSFER_SYNTAXES:
        raise Undecodable(f"{name}: no decoder for the transfer syntax {UID(syntax).name}")
    value = find_no_slice(str(one) for one in _values(instance.get("ImageType")))
    if value is not None:
        raise NotASlice(name, f"Image Type {value}: {NO_SLICES[value]}, not a CT volume")


def _check_pixel_data(instance: Dataset, name: str) -> None:
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored"):
        number = _whole(instance, keyword, name)
        if number < 1 or number > _LONGEST_SIDE:
            raise UnfitSeries(f"{name}: {describe_attribute(keyword)} of {number}: 1 to {_LONGEST_SIDE} is possible")
    _whole(instance, "PixelRepresentation", name)
    if instance.get("SamplesPerPixel") != 1:
        raise UnfitSeries(f"{name}: a colour image, not CT numbers")
    element = instance.get_item("PixelData")
    if element is None or not element.value:
        raise NotImageData(f"{name}: no pixel data: a truncated file or not an image")
    frames = int(instance.get("NumberOfFrames") or 1)
    if not 1 <= frames <= _MOST_FRAMES:
        raise UnfitSeries(
            f"{name}: {describe_attribute('NumberOfFrames')} of {frames}: 1 to {_MOST_FRAMES} is possible"
        )
    needed = instance.Rows * instance.Columns * instance.BitsAllocated // 8 * frames
    # Of compressed pixel data the reader has found the end, or it would not be here; decoding shows the rest.
    if not instance.file_meta.TransferSyntaxUID.is_compressed and len(element.value) < needed:
        raise NotImageData(f"{name}: truncated: {len(element.value)} bytes of pixel data where {needed} are needed")


def _frame_headers(instance: Dataset, name: str) -> Iterator[Dataset]:
    """For each frame the attributes that place and scale it, from the image itself or from its functional groups."""
    if instance.SOPClassUID == CTImageStorage:
        yield instance
        return
    per_frame = instance.get("PerFrameFunctionalGroupsSequence") or []
    if len(per_frame) != int(instance.get("NumberOfFrames") or 0) or not per_frame:
        raise UnfitSeries(
            f"{name}: {describe_attribute('PerFrameFunctionalGroupsSequence')} does not describe each frame"
        )
    shared = (instance.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for groups in per_frame:
        header = Dataset()
        for macro in (
            "PlanePositionSequence",
            "PlaneOrientationSequence",
            "PixelMeasuresSequence",
            "PixelValueTransformationSequence",
        ):
            header.update(_macro(macro, groups, shared))
        for mark, (macro, keyword) in _FRAME_MARKS.items():
            value = _macro(macro, groups, shared).get(keyword)
            if value is not None:
                setattr(header, mark, value)
        yield header


def _macro(name: str, groups: Dataset, shared: Dataset) -> Dataset:
    """The item of a functional group, of the frame or shared by all frames; empty where there is none."""
    items = groups.get(name) or shared.get(name)
    return items[0] if items else Dataset()


def _marks(header: Dataset) -> dict[str, str]:
    found = {keyword: _text(header.get(keyword)) for keyword in MARKS}
    if not found["AcquisitionDateTime"] and header.get("AcquisitionTime"):
        found["AcquisitionDateTime"] = _text(header.get("AcquisitionDate")) + _text(header.get("AcquisitionTime"))
    return {keyword: text for keyword, text in found.items() if text}


def _text(value: Any) -> str:
    return "\\".join(str(part).strip() for part in _values(value))


def _plane(header: Dataset, instance: Dataset, path: Path, frame: int) -> Plane:
    name = _name(instance, path)
    if instance.SOPClassUID != CTImageStorage:
        name = f"{name} frame {frame + 1}"
    spacing_mm = _numbers(header, "PixelSpacing", 2, name)
    if min(spacing_mm) <= 0:
        raise UnfitGeometry(f"{name}: {describe_attribute('PixelSpacing')} of {spacing_mm} mm")
    (slope,), (intercept,) = (_numbers(header, keyword, 1, name) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0 or header.get("RescaleType") in _NOT_HOUNSFIELD:
        raise UnfitSeries(f"{name}: the stored values are not CT numbers (slope {slope}, {header.get('RescaleType')})")
    return Plane(
        path=path,
        transfer_syntax=str(instance.file_meta.TransferSyntaxUID),
        frame=frame,
        name=name,
        rows=instance.Rows,
        columns=instance.Columns,
        orientation=_orientation(header, name),
        position=_numbers(header, "ImagePositionPatient", 3, name),
        spacing_mm=spacing_mm,
        slope=slope,
        intercept=intercept,
        padding=_padding(instance),
        marks=_marks(header),
    )


def _orientation(header: Dataset, name: str) -> tuple[float, ...]:
    """Row and column cosines, made exactly orthonormal; files round them to a few decimals."""
    cosines = np.array(_numbers(header, "ImageOrientationPatient", 6, name))
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 1e-3 or abs(row @ column) > 2e-4:
        raise UnfitGeometry(
            f"{name}: {describe_attribute('ImageOrientationPatient')} is not two orthogonal unit vectors"
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return tuple(float(value) for value in (*row, *column))


def _padding(instance: Dataset) -> tuple[int, int] | None:
    """Stored values that are padding (PS3.3 C.7.5.1.1.2). Writers give signed padding as unsigned and the reverse."""
    value = instance.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = instance.get("PixelPaddingRangeLimit")
    ends = [end & 0xFFFF for end in (value, limit if isinstance(limit, int) else value)]
    if instance.PixelRepresentation == 1:
        ends = [end - 0x10000 if end >= 0x8000 else end for end in ends]
    return min(ends), max(ends)


def _whole(instance: Dataset, keyword: str, name: str) -> int:
    value = instance.get(keyword)
    if not isinstance(value, int):
        raise UnfitSeries(f"{name}: {describe_attribute(keyword)} is missing")
    return value


def _numbers(header: Dataset, keyword: str, count: int, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in _values(header.get(keyword)))
    except (TypeError, ValueError) as error:
        raise UnfitGeometry(f"{name}: {describe_attribute(keyword)} is not a number") from error
    if not numbers:
        raise UnfitGeometry(f"{name}: {describe_attribute(keyword)} is missing")
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise UnfitGeometry(f"{name}: {describe_attribute(keyword)} is not {count} finite numbers")
    return numbers


def _values(value: Any) -> Iterable[Any]:
    if isinstance(value, MultiValue):
        return value
    return [] if value is None or value == "" else [value]

"""CT image planes: one frame of one file, where it lies, and how its stored values are scaled."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES
from pipeline.errors import NotImageData, Undecodable, UnfitGeometry, UnfitSeries

MULTI_FRAME_SOP_CLASSES = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SOP_CLASSES = (CTImageStorage, *MULTI_FRAME_SOP_CLASSES)

_UNFIT_IMAGE_TYPES = {
    "LOCALIZER": "a localizer",
    "MPR": "a multi-planar reformat",
    "REFORMATTED": "a multi-planar reformat",
    "MIP": "a maximum intensity projection",
    "MAX_IP": "a maximum intensity projection",
    "MINIP": "a minimum intensity projection",
    "MIN_IP": "a minimum intensity projection",
    "SCREEN SAVE": "a screen capture",
    "DOSE_INFO": "a dose page",
}
_NOT_HOUNSFIELD = {"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"}
"""Rescale Types (PS3.3 C.11.1.1.2) whose values are certainly not CT numbers."""

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
"""What SEG and SR refer to: each instance has them, or no result could be written."""

_LONGEST_SIDE = 4096

# What pydicom and its decoders raise on damaged input; each was met with truncated or altered files.
READING_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Plane:
    """One image plane of a CT series, as its file describes it (PS3.3 C.7.6.2, C.8.2.1; functional groups C.7.6.16.2).

    frame: index in the file, from 0. orientation: unit row then column cosines, orthogonal. position: centre of the
    first voxel, mm. spacing_mm: between rows, between columns. HU = slope * stored + intercept; stored values within
    padding (both ends included) are no image.
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


def read_instance(path: Path) -> tuple[Dataset, tuple[Plane, ...]]:
    """Read a CT file: its attributes without the pixel data, and its planes in the order of the file.

    Raises a kind of `Refused` that names the file and what is wrong: no DICOM, truncated, no CT, a transfer syntax or
    an image type that is not read, an attribute that is missing or makes no sense.
    """
    try:
        return _read_instance(path)
    except READING_ERRORS as error:  # pydicom converts values when they are asked for, and fails as it meets damage
        raise NotImageData(f"{path.name}: a damaged or truncated DICOM file") from error


def _read_instance(path: Path) -> tuple[Dataset, tuple[Plane, ...]]:
    instance = _read(path)
    _drop_unreadable(instance)
    _check_class(instance, path.name)
    for keyword in UIDS:
        _check_uid(instance, keyword, path.name)
    _check_pixel_data(instance, path.name)
    del instance["PixelData"]  # the planes decode from the file: a series of 2,000 slices must not lie in memory twice
    planes = tuple(
        _plane(header, instance, path, frame) for frame, header in enumerate(_frame_headers(instance, path.name))
    )
    return instance, planes


def _check_uid(instance: Dataset, keyword: str, name: str) -> None:
    value = instance.get(keyword)
    if not value:
        raise UnfitSeries(f"{name}: {describe_attribute(keyword)} is missing")
    if not isinstance(value, str) or len(value) > 64 or set(value) - set("0123456789."):
        raise UnfitSeries(f"{name}: {describe_attribute(keyword)} is not a UID")


def describe_attribute(keyword: str) -> str:
    """Name and tag of an attribute: "Pixel Spacing (0028,0030)"."""
    tag = BaseTag(tag_for_keyword(keyword) or 0)
    return f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"


def _read(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path)
    except InvalidDicomError as error:
        raise NotImageData(f"{path.name}: not a DICOM file") from error
    except OSError as error:
        raise NotImageData(f"{path.name}: cannot be read ({error.strerror or error})") from error


def _drop_unreadable(instance: Dataset) -> None:
    """Delete attributes whose value does not fit their VR: what nobody can read is as good as absent.

    The values are tried and not kept: what results take over from the source must stay as it came, byte for byte.
    """
    for tag in list(instance.keys()):
        element = instance.get_item(tag)
        try:
            if isinstance(element, RawDataElement):
                convert_raw_data_element(element, ds=instance)
        except READING_ERRORS:
            del instance[tag]


def _check_class(instance: Dataset, name: str) -> None:
    _check_uid(instance, "SOPClassUID", name)
    sop_class = UID(instance.SOPClassUID)
    if sop_class not in SOP_CLASSES:
        raise NotImageData(f"{name}: {sop_class.name} is not a CT image")
    syntax = instance.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise NotImageData(f"{name}: {describe_attribute('TransferSyntaxUID')} is missing")
    if syntax not in DECODABLE_TRANSFER_SYNTAXES:
        raise Undecodable(f"{name}: no decoder for the transfer syntax {UID(syntax).name}")
    for value in _values(instance.get("ImageType")):
        if str(value) in _UNFIT_IMAGE_TYPES:
            raise UnfitSeries(f"{name}: Image Type {value}: {_UNFIT_IMAGE_TYPES[str(value)]}, not a CT volume")


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
    shared = instance.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for groups in per_frame:
        header = Dataset()
        for macro in (
            "PlanePositionSequence",
            "PlaneOrientationSequence",
            "PixelMeasuresSequence",
            "PixelValueTransformationSequence",
        ):
            items = groups.get(macro) or shared[0].get(macro)
            header.update(items[0] if items else {})
        yield header


def _plane(header: Dataset, instance: Dataset, path: Path, frame: int) -> Plane:
    name = path.name if instance.SOPClassUID == CTImageStorage else f"{path.name} frame {frame + 1}"
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

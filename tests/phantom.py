"""A digital phantom: a body that no flip or turn maps onto itself, with organs of exactly known volume and position.

The truth is given in patient space, in mm; the slices are a sampling of it, so that every way of scanning it (spacing,
orientation, order, slice step) has the same truth. Multi-frame CT and what lies beside slices: `tests.phantom_objects`.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import highdicom.legacy
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.tag import Tag
from pydicom.uid import (
    JPEG2000,
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSNearLossless,
    generate_uid,
)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in patient space: centre and semi-axes along x, y, z in mm."""

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    hounsfield: float

    @property
    def volume_ml(self) -> float:
        return 4 / 3 * math.pi * math.prod(self.semi_axes) / 1000

    def contains(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each point (..., 3) lies inside."""
        return np.linalg.norm((points - self.centre) / self.semi_axes, axis=-1) <= 1

    def reach(self, direction: NDArray[np.float64]) -> float:
        """How far it reaches from its centre along a unit vector, mm."""
        return float(np.linalg.norm(direction * self.semi_axes))

    def share(self, points: NDArray[np.float64], voxel_mm: float) -> NDArray[np.float64]:
        """Share of a voxel of about `voxel_mm` around each point (..., 3) that lies inside."""
        offset = points - self.centre
        radius = np.linalg.norm(offset / self.semi_axes, axis=-1)
        slope = np.linalg.norm(offset / np.square(self.semi_axes), axis=-1)
        distance = radius * (radius - 1) / np.maximum(slope, 1e-9)
        return np.clip(0.5 - distance / voxel_mm, 0, 1)


PANCREAS = Ellipsoid((12.0, -9.0, 6.0), (34.0, 15.0, 17.0), 180.0)
ORGANS = (
    Ellipsoid((0.0, 0.0, 0.0), (95.0, 72.0, 400.0), 0.0),  # the trunk
    Ellipsoid((-48.0, -14.0, 22.0), (30.0, 36.0, 34.0), 60.0),  # a liver, on the patient's right
    Ellipsoid((58.0, 26.0, 30.0), (16.0, 20.0, 22.0), 45.0),  # a spleen, left and behind
    Ellipsoid((-36.0, 34.0, -26.0), (15.0, 14.0, 24.0), 30.0),  # one kidney only
    PANCREAS,
)
AIR_HU = -1000.0

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
NEGATED_COLUMN = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.9848078, 0.1736482, 0.0, -0.1631759, 0.9254166, 0.3420201)

POSITIONS = {
    "HFS": AXIAL,
    "HFP": PRONE,
    "HFDR": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0),
    "HFDL": (0.0, -1.0, 0.0, 1.0, 0.0, 0.0),
    "FFS": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "FFP": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "FFDR": (0.0, -1.0, 0.0, -1.0, 0.0, 0.0),
    "FFDL": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0),
}
"""Patient Position (PS3.3 C.7.3.1.1.2) -> cosines of images that show the gantry from its front, its top at the top."""

# dcmtk writes what no encoder of pydicom does; the lossy ones stay within 2 HU.
_DCMCJPEG = {JPEGLosslessSV1: "+e1", JPEGLossless: "+el"}
_ENCODER = {JPEG2000: {"j2k_cr": [3]}, JPEGLSNearLossless: {"jls_error": 2}}


def turn(orientation: Sequence[float], degrees: tuple[float, float, float]) -> tuple[float, ...]:
    """Row and column cosines turned about the patient's x, then y, then z axis."""
    cosines = np.reshape(orientation, (2, 3))
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turned = cosines.copy()
        turned[:, first] = math.cos(angle) * cosines[:, first] - math.sin(angle) * cosines[:, second]
        turned[:, second] = math.sin(angle) * cosines[:, first] + math.cos(angle) * cosines[:, second]
        cosines = turned
    return tuple(float(cosine) for cosine in cosines.ravel())


@dataclass(frozen=True)
class Phase:
    """One of several passes over the phantom that one series holds.

    attributes: what tells it apart. slices: the indices that it covers, None for all.
    """

    attributes: Mapping[str, object] = field(default_factory=dict)
    pancreas_hu: float = PANCREAS.hounsfield
    slices: range | None = None


@dataclass(frozen=True)
class PhantomOptions:
    """How the phantom is scanned and written.

    shape: slices, rows, columns; spacing_mm along them. order: of the slices in the files; each file's Instance Number
    counts the files. slopes, intercept: stored = (HU - intercept) / slope, slopes taken in turn. bits: stored, of 16.
    padding: stored value of air and of a border of border voxels; padding_limit: the other end of its range.
    tilt_mm: by how much each slice is shifted along its columns against the one before. tilt_degrees: of the gantry:
    the planes turn about their rows, the table moves on as before. missing, twice: slice indices left out or written
    twice. step_errors_mm: by slice index, added to its position along the normal. phases: written one after the other.
    attributes: set last; None deletes; slice_attributes: the same by slice index. raw: values as these bytes, legal or
    not.
    """

    shape: tuple[int, int, int] = (48, 80, 100)
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)
    orientation: tuple[float, ...] = AXIAL
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    order: str = "ascending"  # or "descending", "shuffled"
    slopes: Sequence[float] = (1.0,)
    intercept: float = -1024.0
    is_signed: bool = False
    bits: int = 16
    padding: int | None = None
    padding_limit: int | None = None
    border: int = 0
    transfer_syntax: str = ExplicitVRLittleEndian
    tilt_mm: float = 0.0
    tilt_degrees: float = 0.0
    missing: Sequence[int] = ()
    twice: Sequence[int] = ()
    step_errors_mm: Mapping[int, float] = field(default_factory=dict)
    phases: Sequence[Phase] = (Phase(),)
    attributes: Mapping[str, object] = field(default_factory=dict)
    slice_attributes: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    raw: Mapping[str, bytes] = field(default_factory=dict)
    seed: str = "phantom"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image as it is written: number counts from 1; index is its slice of the scan."""

    number: int
    index: int
    phase: Phase
    hounsfield: NDArray[np.float64]
    slope: float


def centres(options: PhantomOptions) -> NDArray[np.float64]:
    """Patient coordinates of the voxel centres, mm, shape (slice, row, column, 3)."""
    indices = np.stack(np.meshgrid(*(np.arange(size) for size in options.shape), indexing="ij"), axis=-1)
    return _first_position(options) + indices @ steps(options)


def scan(options: PhantomOptions, pancreas_hu: float = PANCREAS.hounsfield) -> NDArray[np.float64]:
    """HU of the phantom, shape (slice, row, column), slice 0 first along the normal (row cosines x column cosines)."""
    points = centres(options)
    voxel_mm = math.prod(options.spacing_mm) ** (1 / 3)
    hounsfield = np.full(options.shape, AIR_HU)
    for organ in (*ORGANS[:-1], replace(PANCREAS, hounsfield=pancreas_hu)):
        share = organ.share(points, voxel_mm)
        hounsfield += share * (organ.hounsfield - hounsfield)
    return hounsfield


def write_series(folder: Path, options: PhantomOptions | None = None) -> list[Path]:
    """Write the phantom as CT slices into `folder`; the paths in the order of writing."""
    options = options or PhantomOptions()
    paths = []
    for frame in frames(options):
        path = folder / f"{frame.number:04d}.dcm"
        save(_instance(frame, options), path, options)
        paths.append(path)
    return paths


def write_multiframe(path: Path, options: PhantomOptions | None = None) -> Path:
    """Write the phantom as one Legacy Converted Enhanced CT, its frames in the order of `options`."""
    with tempfile.TemporaryDirectory() as folder:
        slices = [pydicom.dcmread(single) for single in write_series(Path(folder), options)]
        enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            slices,
            series_instance_uid=generate_uid(entropy_srcs=["enhanced series"]),
            series_number=4,
            sop_instance_uid=generate_uid(entropy_srcs=["enhanced instance"]),
            instance_number=1,
        )
    enhanced.save_as(path)
    return path


def frames(options: PhantomOptions) -> Iterator[Frame]:
    """The images in the order of writing."""
    scans = [scan(options, phase.pancreas_hu) for phase in options.phases]
    for number, (phase, index) in enumerate(_writing_order(options), start=1):
        slope = options.slopes[index % len(options.slopes)]
        yield Frame(number, index, options.phases[phase], scans[phase][index], slope)


def steps(options: PhantomOptions) -> NDArray[np.float64]:
    """What one step along slice, row and column index adds to the position, one per row, mm."""
    row, column = plane_cosines(options)
    directions = np.array([_table(options), column, row])
    vectors = directions * np.array(options.spacing_mm)[:, None]
    vectors[0] += options.tilt_mm * column
    return vectors


def plane_cosines(options: PhantomOptions) -> NDArray[np.float64]:
    """Directions of the rows and of the columns of the images, shape (2, 3)."""
    row, column = np.reshape(options.orientation, (2, 3))
    tilt = math.radians(options.tilt_degrees)
    return np.array([row, math.cos(tilt) * column + math.sin(tilt) * _table(options)])


def position(index: int, options: PhantomOptions) -> list[str]:
    """Image Position (Patient) of a slice."""
    point = _first_position(options) + index * steps(options)[0]
    return [f"{value:.6f}" for value in point + options.step_errors_mm.get(index, 0.0) * _table(options)]


def _table(options: PhantomOptions) -> NDArray[np.float64]:
    """The direction in which the table moves: the normal of the planes of an upright gantry."""
    row, column = np.reshape(options.orientation, (2, 3))
    return np.cross(row, column)


def _first_position(options: PhantomOptions) -> NDArray[np.float64]:
    return np.array(options.centre) - (np.array(options.shape) - 1) / 2 @ steps(options)


def _writing_order(options: PhantomOptions) -> list[tuple[int, int]]:
    """Indices of phase and slice."""
    everything = range(options.shape[0])
    order = [
        (number, index)
        for number, phase in enumerate(options.phases)
        for index in sorted([index for index in everything if index not in options.missing] + list(options.twice))
        if index in (phase.slices or everything)
    ]
    if options.order == "descending":
        return order[::-1]
    if options.order == "shuffled":
        return [order[place] for place in np.random.default_rng(7).permutation(len(order))]
    return order


def _instance(frame: Frame, options: PhantomOptions) -> Dataset:
    instance = header(options)
    instance.InstanceNumber = frame.number
    instance.SOPInstanceUID = generate_uid(entropy_srcs=[options.seed, str(frame.number)])
    instance.ImagePositionPatient = position(frame.index, options)
    instance.RescaleSlope, instance.RescaleIntercept = f"{frame.slope:g}", f"{options.intercept:g}"
    set_pixels(instance, [frame], options)
    set_attributes(instance, frame.phase.attributes)
    set_attributes(instance, options.slice_attributes.get(frame.index, {}))
    return instance


def header(options: PhantomOptions) -> Dataset:
    """The attributes that all images of the series share."""
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.Modality = "CT"
    header.Manufacturer, header.ManufacturerModelName = "Phantom", "Ellipsoids"
    header.PatientName, header.PatientID = "Phantom^Asymmetric", "PHANTOM-1"
    header.PatientBirthDate, header.PatientSex = "19700101", "O"
    header.StudyDate, header.StudyTime = "20200102", "101112"
    header.AcquisitionDate, header.AcquisitionTime = "20200102", "101113"
    header.StudyID, header.AccessionNumber, header.ReferringPhysicianName = "1", "A1", None
    header.SeriesNumber, header.AcquisitionNumber = 3, 1
    header.StudyInstanceUID = generate_uid(entropy_srcs=[options.seed, "study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[options.seed, "series"])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[options.seed, "frame of reference"])
    header.PositionReferenceIndicator = ""
    header.PatientPosition = "HFS"
    header.KVP = 120
    header.SliceThickness = 5  # deliberately not the step: only positions may be believed
    header.PixelSpacing = [f"{value:g}" for value in options.spacing_mm[1:]]
    header.ImageOrientationPatient = [f"{value:g}" for value in plane_cosines(options).ravel()]
    return header


def set_pixels(instance: Dataset, images: Sequence[Frame], options: PhantomOptions) -> None:
    """Pixel data and what describes it. ValueError where fewer than 16 bits do not hold the values; 16 wrap."""
    stored = np.stack([np.round((image.hounsfield - options.intercept) / image.slope) for image in images])
    lowest = -(2 ** (options.bits - 1)) if options.is_signed else 0
    if options.bits < 16 and (stored.min() < lowest or stored.max() >= lowest + 2**options.bits):
        raise ValueError(f"{stored.min()} to {stored.max()} in {options.bits} bits")
    if options.padding is not None:
        _pad(instance, stored, np.stack([image.hounsfield for image in images]) <= AIR_HU, options)
    instance.Rows, instance.Columns = stored.shape[1:]
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit = 16, options.bits, options.bits - 1
    instance.PixelRepresentation = int(options.is_signed)
    order = ">" if options.transfer_syntax == ExplicitVRBigEndian else "<"
    instance.PixelData = stored.astype(f"{order}i2" if options.is_signed else f"{order}u2").tobytes()


def _pad(instance: Dataset, stored: NDArray[np.float64], air: NDArray[np.bool_], options: PhantomOptions) -> None:
    vr, padding, limit = "SS" if options.is_signed else "US", options.padding or 0, options.padding_limit
    instance.add_new("PixelPaddingValue", vr, padding)
    if limit is not None:
        instance.add_new("PixelPaddingRangeLimit", vr, limit)
    if options.border:
        air |= np.pad(
            np.zeros([size - 2 * options.border for size in air.shape[1:]], bool), options.border, constant_values=True
        )
    ends = sorted((padding, padding if limit is None else limit))
    stored[air] = np.random.default_rng(5).integers(ends[0], ends[1] + 1, np.count_nonzero(air))


def set_attributes(instance: Dataset, attributes: Mapping[str, object]) -> None:
    """Set attributes by keyword; None deletes."""
    for keyword, value in attributes.items():
        if value is None:
            del instance[keyword]
        else:
            setattr(instance, keyword, value)


def save(instance: Dataset, path: Path, options: PhantomOptions) -> None:
    """Give an instance the attributes and the transfer syntax of `options`, and write it."""
    syntax = UID(options.transfer_syntax)
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    set_attributes(instance, options.attributes)
    if syntax.is_compressed and syntax not in _DCMCJPEG:
        instance.compress(syntax, generate_instance_uid=False, **_ENCODER.get(syntax, {}))
    if syntax not in _DCMCJPEG:
        instance.file_meta.TransferSyntaxUID = syntax
    _set_raw(instance, options.raw)
    instance.save_as(path, enforce_file_format=True)
    if syntax in _DCMCJPEG:
        subprocess.run(["dcmcjpeg", _DCMCJPEG[syntax], str(path), str(path)], check=True, capture_output=True)


def _set_raw(instance: Dataset, raw: Mapping[str, bytes]) -> None:
    syntax = instance.file_meta.TransferSyntaxUID
    correct_ambiguous_vr(instance, is_little_endian=True)
    for keyword, content in raw.items():
        tag = Tag(tag_for_keyword(keyword) or 0)
        value = content + b" " * (len(content) % 2)
        instance[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, syntax.is_implicit_VR, True)
    if raw:  # so marked, pydicom writes raw elements as they are
        charset = instance.get("SpecificCharacterSet")
        encodings = convert_encodings(charset) if charset else default_encoding
        instance.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian, encodings)

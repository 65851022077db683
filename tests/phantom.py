"""A digital phantom: a body that no flip or turn maps onto itself, with organs of exactly known volume and position.

The truth is given in patient space, in mm; the slices are a sampling of it, so that every way of scanning it (spacing,
orientation, order, slice step) has the same truth.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom.legacy
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in patient space: centre and semi-axes along x, y, z in mm."""

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    hounsfield: float

    @property
    def volume_ml(self) -> float:
        return 4 / 3 * math.pi * math.prod(self.semi_axes) / 1000

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


@dataclass(frozen=True)
class PhantomOptions:
    """How the phantom is scanned and written.

    shape: slices, rows, columns; spacing_mm along them. order: of the slices in the files; each file's Instance Number
    counts the files. slopes, intercept: stored = (HU - intercept) / slope, slopes taken in turn. tilt_mm: by how much
    each slice is shifted along its columns against the one before. missing, twice: slice indices left out or written
    twice. step_errors_mm: by slice index, added to its position along the normal. attributes: set last; None deletes.
    """

    shape: tuple[int, int, int] = (48, 80, 100)
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)
    orientation: tuple[float, ...] = AXIAL
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    order: str = "ascending"  # or "descending", "shuffled"
    slopes: Sequence[float] = (1.0,)
    intercept: float = -1024.0
    is_signed: bool = False
    padding: int | None = None
    transfer_syntax: str = ExplicitVRLittleEndian
    tilt_mm: float = 0.0
    missing: Sequence[int] = ()
    twice: Sequence[int] = ()
    step_errors_mm: Mapping[int, float] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)
    seed: str = "phantom"


def scan(options: PhantomOptions) -> NDArray[np.float64]:
    """HU of the phantom, shape (slice, row, column), slice 0 first along the normal (row cosines x column cosines)."""
    indices = np.stack(np.meshgrid(*(np.arange(size) for size in options.shape), indexing="ij"), axis=-1)
    points = _first_position(options) + indices @ _steps(options)
    voxel_mm = math.prod(options.spacing_mm) ** (1 / 3)
    hounsfield = np.full(options.shape, AIR_HU)
    for organ in ORGANS:
        share = organ.share(points, voxel_mm)
        hounsfield += share * (organ.hounsfield - hounsfield)
    return hounsfield


def write_series(folder: Path, options: PhantomOptions | None = None) -> list[Path]:
    """Write the phantom as CT slices into `folder`; the paths in the order of writing."""
    options = options or PhantomOptions()
    hounsfield = scan(options)
    paths = []
    for number, index in enumerate(_writing_order(options), start=1):
        path = folder / f"{number:04d}.dcm"
        _instance(hounsfield[index], index, number, options).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _steps(options: PhantomOptions) -> NDArray[np.float64]:
    """What one step along slice, row and column index adds to the position, one per row, mm."""
    row, column = np.reshape(options.orientation, (2, 3))
    directions = np.array([np.cross(row, column), column, row])
    steps = directions * np.array(options.spacing_mm)[:, None]
    steps[0] += options.tilt_mm * column
    return steps


def _first_position(options: PhantomOptions) -> NDArray[np.float64]:
    return np.array(options.centre) - (np.array(options.shape) - 1) / 2 @ _steps(options)


def _writing_order(options: PhantomOptions) -> list[int]:
    indices = sorted([index for index in range(options.shape[0]) if index not in options.missing] + list(options.twice))
    if options.order == "descending":
        return indices[::-1]
    if options.order == "shuffled":
        return [int(index) for index in np.random.default_rng(7).permutation(indices)]
    return indices


def _instance(hounsfield: NDArray[np.float64], index: int, number: int, options: PhantomOptions) -> Dataset:
    instance = _header(options)
    instance.InstanceNumber = number
    instance.SOPInstanceUID = generate_uid(entropy_srcs=[options.seed, str(number)])
    instance.ImagePositionPatient = [f"{value:.6f}" for value in _position(index, options)]
    slope = options.slopes[index % len(options.slopes)]
    instance.RescaleSlope, instance.RescaleIntercept = f"{slope:g}", f"{options.intercept:g}"
    instance.Rows, instance.Columns = hounsfield.shape
    _set_pixels(instance, hounsfield, slope, options)
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    for keyword, value in options.attributes.items():
        if value is None:
            del instance[keyword]
        else:
            setattr(instance, keyword, value)
    return _in_syntax(instance, options.transfer_syntax)


def _position(index: int, options: PhantomOptions) -> NDArray[np.float64]:
    row, column = np.reshape(options.orientation, (2, 3))
    error_mm = options.step_errors_mm.get(index, 0.0)
    return _first_position(options) + index * _steps(options)[0] + error_mm * np.cross(row, column)


def _header(options: PhantomOptions) -> Dataset:
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
    header.ImageOrientationPatient = [f"{value:g}" for value in options.orientation]
    return header


def _set_pixels(instance: Dataset, hounsfield: NDArray[np.float64], slope: float, options: PhantomOptions) -> None:
    stored = np.round((hounsfield - options.intercept) / slope)
    if options.padding is not None:
        instance.add_new("PixelPaddingValue", "SS" if options.is_signed else "US", options.padding)
        stored[hounsfield <= AIR_HU] = options.padding
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit = 16, 16, 15
    instance.PixelRepresentation = int(options.is_signed)
    instance.PixelData = stored.astype(np.int16 if options.is_signed else np.uint16).tobytes()


def _in_syntax(instance: Dataset, syntax: str) -> Dataset:
    uid = pydicom.uid.UID(syntax)
    if uid.is_compressed:
        instance.compress(uid, generate_instance_uid=False)
    instance.file_meta.TransferSyntaxUID = uid
    return instance


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

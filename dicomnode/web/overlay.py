"""Slices as they are looked at: the CT one plane at a time, and on each the outline of what the model marked.

A mask is laid on the slice that its SEG frame names as its source (PS3.3 C.7.6.16.2.6), never on one of the same index.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.utils import iter_pixels

from pipeline.decoding import read_hounsfield
from pipeline.errors import UNREADABLE, NotImageData, UnfitGeometry
from pipeline.planes import Plane
from pipeline.series import Series, open_series

_OPENED = 4  # series are kept opened, without their voxels
_TOLERANCE_MM = 0.01
_LEAST_SHARE = 0.2  # of a direction along an axis of the patient, for its letter to be written: 11 degrees
_HEAD = 2  # the axis of the patient from the feet to the head
_OPPOSITE = dict(zip("LRPAHF", "RLAPFH", strict=True))

_Corner = tuple[int, int]


@dataclass(frozen=True)
class Slice:
    """One slice of the series.

    place: of its centre along the patient, "H 43.2 mm". area_mm2: of the mask. outline: around the mask as an SVG path
    in voxels from the upper left corner of the picture, to be filled by even-odd; empty where the mask is.
    """

    plane: Plane
    place: str
    area_mm2: float
    outline: str


@dataclass(frozen=True)
class Sides:
    """To which side of the patient each edge of the picture points, by one to three letters (PS3.3 C.7.6.1.1.1)."""

    top: str
    right: str
    bottom: str
    left: str


@dataclass(frozen=True)
class Overlay:
    """A series with what was marked in it.

    slices: in the order in which they are read: from the head down, from the front back, from right to left.
    spacing_mm: between rows, between columns. volume_ml: of all masks. remarks: what was assumed about the series, or
    left out of it.
    """

    slices: tuple[Slice, ...]
    rows: int
    columns: int
    spacing_mm: tuple[float, float]
    sides: Sides
    volume_ml: float
    remarks: tuple[str, ...]


def open_overlay(images: Sequence[Path], segmentation: Path | None) -> Overlay:
    """Put the slices of a series in order and outline what a SEG marks on them; no CT voxel is decoded yet.

    images: as `pipeline.series.open_series` takes them. segmentation: None where nothing was found.
    Raises a kind of `Refused` where the series makes no volume, or the SEG does not lie on it.
    """
    series = open_series(images)
    marks = dict(_read_marks(segmentation, series)) if segmentation else {}
    first = series.planes[0]
    row, column = np.reshape(first.orientation, (2, 3))
    normal = np.array(series.grid.geometry.unit_vectors()[0])
    axis = int(np.abs(normal).argmax())
    slices = [
        Slice(plane, _place(plane, axis), *marks.get(index, (0.0, ""))) for index, plane in enumerate(series.planes)
    ]
    is_backwards = (normal[axis] > 0) == (axis == _HEAD)
    return Overlay(
        slices=tuple(reversed(slices) if is_backwards else slices),
        rows=first.rows,
        columns=first.columns,
        spacing_mm=(first.spacing_mm[0], first.spacing_mm[1]),
        sides=Sides(*(_letters(direction) for direction in (-column, row, column, -row))),
        volume_ml=sum(one.area_mm2 for one in slices) * series.grid.geometry.spacing_between_slices / 1000,
        remarks=tuple(one.text for one in series.assumptions),
    )


class Lightbox:
    """The overlays that were looked at last, each opened once for all who look at it at the same time."""

    def __init__(self) -> None:
        self._open = lru_cache(_OPENED)(open_overlay)
        self._turns = lru_cache(_OPENED)(lambda *_: threading.Lock())
        self._giving = threading.Lock()

    def show(self, images: Sequence[Path], segmentation: Path | None) -> Overlay:
        """As `open_overlay`."""
        series = (tuple(images), segmentation)
        with self._giving:
            turn = self._turns(*series)
        with turn:
            return self._open(*series)


def read_slice(plane: Plane) -> bytes:
    """The voxels of a plane in HU, rounded to whole ones: 16 bits each, little endian, row after row.

    Raises `Undecodable`.
    """
    return np.rint(read_hounsfield([plane])[0]).astype("<i2").tobytes()


def outline(mask: NDArray[np.bool_]) -> str:
    """The edges of the marked voxels as an SVG path of closed loops along the voxels' borders, to the voxel exact."""
    ends = _edges(mask)
    parts = []
    while ends:
        corner = next(iter(ends))
        loop = list(_trace(ends, corner))
        steps = groupby((x - before_x, y - before_y) for (before_x, before_y), (x, y) in pairwise(loop))
        counted = ((step, len(list(same))) for step, same in steps)
        lines = "".join(f"h{dx * count}" if dx else f"v{dy * count}" for (dx, dy), count in counted)
        parts.append(f"M{corner[0]} {corner[1]}{lines}z")
    return "".join(parts)


def _edges(mask: NDArray[np.bool_]) -> dict[_Corner, list[_Corner]]:
    """The borders between marked and other voxels, from corner to corner, the marked ones always on one side."""
    ends: dict[_Corner, list[_Corner]] = defaultdict(list)
    padded = np.pad(mask, 1).astype(np.int8)
    for axis in (0, 1):
        change = np.diff(padded, axis=axis)
        for row, column in np.argwhere(change).tolist():
            y, x = (row, column - 1) if axis == 0 else (row - 1, column)
            here, there = (x, y), (x + 1, y) if axis == 0 else (x, y + 1)
            if (change[row, column] > 0) == (axis == 0):
                ends[here].append(there)
            else:
                ends[there].append(here)
    return ends


def _trace(ends: dict[_Corner, list[_Corner]], corner: _Corner) -> Iterator[_Corner]:
    """Follow edges until none is left to go on by, which is where it began; those taken are removed."""
    yield corner
    while corner in ends:
        following = ends[corner].pop()
        if not ends[corner]:
            del ends[corner]
        corner = following
        yield corner


def _place(plane: Plane, axis: int) -> str:
    """Where the middle of a plane lies along an axis of the patient: the letter of the side, and how far towards it."""
    row, column = np.reshape(plane.orientation, (2, 3))
    down_mm, right_mm = (np.array([plane.rows, plane.columns]) - 1) / 2 * plane.spacing_mm
    middle_mm = float((np.array(plane.position) + right_mm * row + down_mm * column)[axis])
    letter = "LPH"[axis]
    return f"{letter if middle_mm >= 0 else _OPPOSITE[letter]} {abs(middle_mm):.1f} mm"


def _letters(direction: NDArray[np.float64]) -> str:
    order = np.argsort(-np.abs(direction), kind="stable")
    letters = ("LPH"[axis] if direction[axis] > 0 else _OPPOSITE["LPH"[axis]] for axis in order)
    return "".join(letter for letter, axis in zip(letters, order, strict=True) if abs(direction[axis]) >= _LEAST_SHARE)


def _read_marks(path: Path, series: Series) -> Iterator[tuple[int, tuple[float, str]]]:
    """Of each frame of a BINARY SEG (PS3.3 A.51): the index of its slice, and the area and outline of its mask."""
    planes = _planes_by_source(series)
    try:
        seg = pydicom.dcmread(path, stop_before_pixels=True)
        for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, iter_pixels(path), strict=True):
            index, plane = planes.get(_source(groups), (-1, None))
            if plane is None or frame.shape != (plane.rows, plane.columns):
                raise UnfitGeometry("the segmentation refers to an image that is not of this series")
            position = groups.PlanePositionSequence[0].ImagePositionPatient
            if not np.allclose(plane.position, position, rtol=0, atol=_TOLERANCE_MM):
                raise UnfitGeometry("the segmentation lies elsewhere than the image it refers to")
            area_mm2 = np.count_nonzero(frame) * plane.spacing_mm[0] * plane.spacing_mm[1]
            yield index, (float(area_mm2), outline(frame.astype(bool)))
    except UNREADABLE as error:
        raise NotImageData(f"{path.name}: a damaged segmentation") from error


def _source(groups: Dataset) -> tuple[str, int]:
    """The instance and the frame, from 1, that a SEG frame was derived from."""
    source = groups.DerivationImageSequence[0].SourceImageSequence[0]
    return str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber") or 1)


def _planes_by_source(series: Series) -> dict[tuple[str, int], tuple[int, Plane]]:
    """Each slice by its instance and frame, from 1; one multi-frame file may hold them all."""
    instances = series.instances if len(series.instances) > 1 else series.instances * len(series.planes)
    pairs = enumerate(zip(instances, series.planes, strict=True))
    return {(str(instance.SOPInstanceUID), plane.frame + 1): (index, plane) for index, (instance, plane) in pairs}

"""Files -> Series -> Volume, and every reason to refuse on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from highdicom import VolumeGeometry
from highdicom.spatial import get_normal_vector, get_plane_sort_index
from numpy.typing import NDArray
from pydicom import Dataset

from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES as DECODABLE_TRANSFER_SYNTAXES
from pipeline.decoding import read_hounsfield
from pipeline.errors import NotImageData, UnfitGeometry, UnfitSeries
from pipeline.planes import Plane, describe_attribute, read_instance
from pipeline.volume import Volume

TOLERANCE_VOXELS = 0.1
"""No voxel of the grid may lie further than this from where its file places it."""

_MOST_VOXELS = 2**31
_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")


@dataclass(frozen=True, eq=False)
class Series:
    """One CT series whose planes make one regular grid.

    instances: attributes without pixel data, in the order of the volume: `instances[k]` is slice k; of a multi-frame CT
        there is one instance.
    planes: plane k is slice k of the volume.
    geometry: the grid in patient space; slices increase along the cross product of column and row direction, which
        makes the axes slice, row, column right-handed.
    """

    instances: tuple[Dataset, ...]
    planes: tuple[Plane, ...]
    geometry: VolumeGeometry

    @property
    def first(self) -> Dataset:
        """The attributes of the instance that holds slice 0."""
        return self.instances[0]

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID of every instance."""
        return str(self.first.StudyInstanceUID)

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID of every instance."""
        return str(self.first.SeriesInstanceUID)

    @property
    def is_lossy(self) -> bool:
        """Whether an instance says that it was compressed with loss, by attribute or by transfer syntax."""
        return any(
            one.get("LossyImageCompression") == "01" or one.file_meta.TransferSyntaxUID in _LOSSY_SYNTAXES
            for one in self.instances
        )


def open_series(paths: Sequence[Path]) -> Series:
    """Read the files of one CT series and put its slices in order.

    Raises a kind of `Refused`, which names the file and the reason, unless
    - there is at least one file, and each is a whole, decodable DICOM file of a CT image SOP class, no localizer,
      reformat or projection;
    - all are of one study, one series and one frame of reference, and no instance is there twice;
    - the attributes that place and scale the voxels are there and make sense (PS3.3 C.7.6.2, C.7.6.3, C.8.2.1);
    - rows, columns, pixel spacing and orientation agree;
    - the positions, which alone decide order and spacing, make one regular grid: none twice, none missing, no tilt.
    """
    if not paths:
        raise NotImageData("no files")
    read = [read_instance(path) for path in paths]
    instances = [instance for instance, _ in read]
    names = [path.name for path in paths]
    _check_one_series(instances, names)
    if len(instances) > 1 and any(len(planes) > 1 for _, planes in read):
        raise UnfitSeries(f"{len(instances)} files, some of them multi-frame: one multi-frame file is expected")
    planes = [plane for _, planes_of_file in read for plane in planes_of_file]
    _check_same_grid(planes)
    order = get_plane_sort_index([plane.position for plane in planes], planes[0].orientation)
    ordered = tuple(planes[index] for index in order)
    geometry = _geometry(ordered, instances[0].FrameOfReferenceUID)
    if len(instances) > 1:
        instances = [instances[index] for index in order]
    return Series(tuple(instances), ordered, geometry)


def read_volume(series: Series) -> Volume:
    """Decode a series into HU; raises `Undecodable` naming the file. See `pipeline.decoding.read_hounsfield`."""
    return Volume(read_hounsfield(series.planes), series.geometry)


def _check_one_series(instances: Sequence[Dataset], names: Sequence[str]) -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        uids = [instance[keyword].value for instance in instances]
        other = next((index for index, uid in enumerate(uids) if uid != uids[0]), None)
        if other is not None:
            attribute = describe_attribute(keyword)
            raise UnfitSeries(f"{names[0]} and {names[other]} differ in {attribute}: {len(set(uids))} values in all")
    seen: dict[str, str] = {}
    for instance, name in zip(instances, names, strict=True):
        uid = instance.SOPInstanceUID
        if uid in seen:
            raise UnfitSeries(f"{seen[uid]} and {name} are the same instance")
        seen[uid] = name


def _check_same_grid(planes: Sequence[Plane]) -> None:
    first = planes[0]
    if len(planes) < 2:
        raise UnfitSeries(f"{first.name}: too few slices: one alone is no volume")
    if len(planes) * first.rows * first.columns > _MOST_VOXELS:
        raise UnfitSeries(f"{len(planes)} slices of {first.rows} x {first.columns}: more than {_MOST_VOXELS} voxels")
    for plane in planes:
        for keyword, value, expected, tolerance in (
            ("Rows", (plane.rows,), (first.rows,), 0.0),
            ("Columns", (plane.columns,), (first.columns,), 0.0),
            ("PixelSpacing", plane.spacing_mm, first.spacing_mm, 1e-4 * min(first.spacing_mm)),
            ("ImageOrientationPatient", plane.orientation, first.orientation, 1e-4),
        ):
            if max(abs(a - b) for a, b in zip(value, expected, strict=True)) > tolerance:
                difference = f"{_format(value)} differs from {_format(expected)} in {first.name}"
                raise UnfitGeometry(f"{plane.name}: {describe_attribute(keyword)} {difference}")


def _geometry(planes: Sequence[Plane], frame_of_reference_uid: str) -> VolumeGeometry:
    """The regular grid through sorted planes; raises `UnfitGeometry` where a plane does not lie on it."""
    first = planes[0]
    positions = np.array([plane.position for plane in planes])
    distances_mm = positions @ get_normal_vector(first.orientation, index_convention="DR", handedness="RIGHT_HANDED")
    _check_distances(planes, distances_mm)
    spacing_mm = float(distances_mm[-1] - distances_mm[0]) / (len(planes) - 1)
    geometry = VolumeGeometry.from_attributes(
        image_position=first.position,
        image_orientation=first.orientation,
        rows=first.rows,
        columns=first.columns,
        pixel_spacing=first.spacing_mm,
        spacing_between_slices=spacing_mm,
        number_of_frames=len(planes),
        coordinate_system="PATIENT",
        frame_of_reference_uid=frame_of_reference_uid,
    )
    _check_alignment(planes, geometry, positions)
    return geometry


def _check_distances(planes: Sequence[Plane], distances_mm: NDArray[np.float64]) -> None:
    """Refuse positions that occur twice and gaps that are not regular."""
    gaps_mm = np.diff(distances_mm)
    twice = np.flatnonzero(gaps_mm < 0.01)
    if len(twice):
        pairs = [f"{planes[index].name} and {planes[index + 1].name}" for index in twice[:3]]
        more = f" and {len(twice) - 3} more pairs" if len(twice) > 3 else ""
        raise UnfitGeometry(f"duplicate positions: {', '.join(pairs)}{more}")
    regular = np.linspace(distances_mm[0], distances_mm[-1], len(planes))
    if np.abs(distances_mm - regular).max() <= TOLERANCE_VOXELS * (regular[1] - regular[0]):
        return
    usual_mm = float(np.median(gaps_mm))
    worst = int(np.abs(gaps_mm - usual_mm).argmax())
    between = f"between {planes[worst].name} and {planes[worst + 1].name}"
    missing = round(gaps_mm[worst] / usual_mm) - 1
    uneven = np.abs(gaps_mm - usual_mm) > TOLERANCE_VOXELS * usual_mm
    if missing >= 1 and uneven.mean() < 0.5:
        slices = "1 slice is" if missing == 1 else f"{missing} slices are"
        raise UnfitGeometry(
            f"{slices} missing {between}: a gap of {gaps_mm[worst]:.2f} mm where {usual_mm:.2f} mm is regular"
        )
    raise UnfitGeometry(
        f"uneven slice spacing: {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm, usually {usual_mm:.2f} mm; "
        f"furthest from it {between} ({gaps_mm[worst]:.2f} mm)"
    )


def _check_alignment(planes: Sequence[Plane], geometry: VolumeGeometry, positions: NDArray[np.float64]) -> None:
    """Refuse planes that are not stacked along their normal: a tilted gantry, or a shifted slice."""
    corners = np.array([(index, 0, 0) for index in range(len(planes))])
    away_mm = positions - geometry.map_indices_to_reference(corners)
    sideways_mm = away_mm @ np.reshape(planes[0].orientation, (2, 3)).T
    if np.abs(sideways_mm).max() <= TOLERANCE_VOXELS * min(planes[0].spacing_mm):
        return
    height_mm = geometry.spacing_between_slices * (len(planes) - 1)
    steady_mm = np.linspace(0, 1, len(planes))[:, None] * sideways_mm[-1]
    if np.abs(sideways_mm - steady_mm).max() <= TOLERANCE_VOXELS * max(planes[0].spacing_mm):
        tilt = math.degrees(math.atan2(float(np.linalg.norm(sideways_mm[-1])), height_mm))
        raise UnfitGeometry(f"gantry tilt of {tilt:.1f} degrees: the slices are sheared against each other")
    worst = planes[int(np.abs(sideways_mm).max(axis=1).argmax())]
    raise UnfitGeometry(f"{worst.name} lies {np.abs(sideways_mm).max():.2f} mm beside the line of the other slices")


def _format(values: Iterable[float]) -> str:
    return "\\".join(f"{value:g}" for value in values)

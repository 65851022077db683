"""Planes -> one regular grid, and every reason why they make none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from highdicom import VolumeGeometry
from highdicom.spatial import get_normal_vector
from numpy.typing import NDArray

from pipeline.assumptions import Assumption, AssumptionKind
from pipeline.errors import UnfitGeometry, UnfitSeries
from pipeline.planes import Plane, describe_attribute
from pipeline.volume import Grid

TOLERANCE_VOXELS = 0.1
"""No voxel of the grid may lie further than this from where its file places it."""

SAME_POSITION_MM = 0.01
"""Planes nearer than this are at one position; files round to less."""

_LARGEST_TILT_DEGREES = 45.0
"""Gantries tilt by 30 degrees at most; what is sheared further is something else."""

_MOST_VOXELS = 2**31


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes that make one regular grid: plane k is slice k; slices increase along column x row cosines."""

    planes: tuple[Plane, ...]
    grid: Grid
    assumptions: tuple[Assumption, ...]


def stack(planes: Sequence[Plane], frame_of_reference_uid: str) -> Stack:
    """Put planes in the order of their positions, which alone decide it, on one regular grid.

    A stack that is sheared evenly, by a tilted gantry, makes a sheared grid. Raises `UnfitSeries` for less than two
    planes or too many voxels, and `UnfitGeometry` naming the image unless
    - rows, columns, pixel spacing and orientation agree;
    - no position occurs twice, none is missing, and the steps are even;
    - each plane lies over the one before, but for the shear.
    """
    _check_same_grid(planes)
    along_mm = distances_mm(planes)
    order = np.argsort(along_mm, kind="stable")
    ordered = tuple(planes[index] for index in order)
    spacing_mm, evened = _spacing(ordered, along_mm[order])
    first = ordered[0]
    geometry = VolumeGeometry.from_attributes(
        image_position=first.position,
        image_orientation=first.orientation,
        rows=first.rows,
        columns=first.columns,
        pixel_spacing=first.spacing_mm,
        spacing_between_slices=spacing_mm,
        number_of_frames=len(ordered),
        coordinate_system="PATIENT",
        frame_of_reference_uid=frame_of_reference_uid,
    )
    grid, tilted = _shear(ordered, geometry)
    return Stack(ordered, grid, (*evened, *tilted))


def distances_mm(planes: Sequence[Plane]) -> NDArray[np.float64]:
    """Where each plane lies along the normal of the first, mm (PS3.3 C.7.6.2.1.1)."""
    normal = get_normal_vector(planes[0].orientation, index_convention="DR", handedness="RIGHT_HANDED")
    return np.array([plane.position for plane in planes]) @ normal


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


def _spacing(planes: Sequence[Plane], along_mm: NDArray[np.float64]) -> tuple[float, list[Assumption]]:
    """The step between sorted planes, mm; refuses positions that occur twice and gaps that are not regular."""
    gaps_mm = np.diff(along_mm)
    twice = np.flatnonzero(gaps_mm < SAME_POSITION_MM)
    if len(twice):
        pairs = [f"{planes[index].name} and {planes[index + 1].name}" for index in twice[:3]]
        more = f" and {len(twice) - 3} more pairs" if len(twice) > 3 else ""
        raise UnfitGeometry(f"duplicate positions: {', '.join(pairs)}{more}")
    regular_mm = np.linspace(along_mm[0], along_mm[-1], len(planes))
    spacing_mm, away_mm = float(regular_mm[1] - regular_mm[0]), float(np.abs(along_mm - regular_mm).max())
    if away_mm > TOLERANCE_VOXELS * spacing_mm:
        raise UnfitGeometry(_explain_gaps(planes, gaps_mm))
    if away_mm < SAME_POSITION_MM:
        return spacing_mm, []
    text = f"slices lie up to {away_mm:.2f} mm beside even steps of {spacing_mm:.3f} mm: taken as even"
    return spacing_mm, [Assumption(AssumptionKind.POSITIONS_EVENED, text)]


def _explain_gaps(planes: Sequence[Plane], gaps_mm: NDArray[np.float64]) -> str:
    usual_mm = float(np.median(gaps_mm))
    worst = int(np.abs(gaps_mm - usual_mm).argmax())
    between = f"between {planes[worst].name} and {planes[worst + 1].name}"
    missing = round(gaps_mm[worst] / usual_mm) - 1
    uneven = np.abs(gaps_mm - usual_mm) > TOLERANCE_VOXELS * usual_mm
    if missing >= 1 and uneven.mean() < 0.5:
        slices = "1 slice is" if missing == 1 else f"{missing} slices are"
        return f"{slices} missing {between}: a gap of {gaps_mm[worst]:.2f} mm where {usual_mm:.2f} mm is regular"
    return (
        f"uneven slice spacing: {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm, usually {usual_mm:.2f} mm; "
        f"furthest from it {between} ({gaps_mm[worst]:.2f} mm)"
    )


def _shear(planes: Sequence[Plane], geometry: VolumeGeometry) -> tuple[Grid, list[Assumption]]:
    """The grid with the shear of a tilted gantry; refuses planes that are not stacked evenly."""
    corners = np.array([(index, 0, 0) for index in range(len(planes))])
    away_mm = np.array([plane.position for plane in planes]) - geometry.map_indices_to_reference(corners)
    sideways_mm = away_mm @ np.reshape(planes[0].orientation, (2, 3)).T  # along rows, along columns
    steady_mm = np.linspace(0, 1, len(planes))[:, None] * sideways_mm[-1]
    tolerance_mm = TOLERANCE_VOXELS * min(planes[0].spacing_mm)
    if np.abs(sideways_mm).max() <= tolerance_mm:
        return Grid(geometry), []
    uneven_mm = np.abs(sideways_mm - steady_mm).max(axis=1)
    if uneven_mm.max() > tolerance_mm:
        worst = int(np.abs(sideways_mm - np.median(sideways_mm, axis=0)).max(axis=1).argmax())
        beside_mm = np.abs(sideways_mm[worst] - np.median(sideways_mm, axis=0)).max()
        raise UnfitGeometry(f"{planes[worst].name} lies {beside_mm:.2f} mm beside the line of the other slices")
    along_rows_mm, along_columns_mm = sideways_mm[-1] / (len(planes) - 1)
    shift_mm = math.hypot(along_rows_mm, along_columns_mm)
    degrees = math.degrees(math.atan2(shift_mm, geometry.spacing_between_slices))
    if degrees > _LARGEST_TILT_DEGREES:
        raise UnfitGeometry(f"the slices are sheared by {degrees:.1f} degrees: no gantry tilts that far")
    text = f"gantry tilt of {degrees:.1f} degrees: each slice lies {shift_mm:.2f} mm beside the one before; resampled"
    tilted = Assumption(
        AssumptionKind.TILT_CORRECTED, f"{text} upright for the model, measured on the slices as scanned"
    )
    return Grid(geometry, (float(along_columns_mm), float(along_rows_mm))), [tilted]


def _format(values: Iterable[float]) -> str:
    return "\\".join(f"{value:g}" for value in values)

"""How much a volume changes when nothing but the image does: `python -m training.repeatability --bundle B SERIES...`.

Each series is analysed as it is and changed as another scan of the same patient would change it. What comes out is a
lower bound for two scans: breathing, contrast and the organ's own motion are not in it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from highdicom import VolumeGeometry
from numpy.typing import NDArray

from models.bundle import Model, record_repeatability
from pipeline.analyse import Options, segment
from pipeline.errors import UnfitSeries
from pipeline.preprocess import resample
from pipeline.volume import Grid, Volume
from training.cases import read_source
from training.evaluate import add_model_arguments, finite, read_model

COEFFICIENT = 2.77
"""1.96 * sqrt(2): 95 % of differences between two measurements lie within this many within-subject SD."""

_AIR_HU = -1024
_KERNEL_MM = 0.8
_STATEMENT = (
    "Of one series changed by computation: 95 % of the differences between two such analyses are expected within the "
    "repeatability coefficient. A lower bound for two scans of one patient."
)


@dataclass(frozen=True)
class Change:
    """One way to change a series. apply: makes the changed volume from a series."""

    kind: str
    name: str
    apply: Callable[[Volume], Volume]


@dataclass(frozen=True)
class Measured:
    """One analysis. series counts from 1; kind "original": as it is. volume_ml: 0.0 where nothing was found."""

    series: int
    kind: str
    name: str
    volume_ml: float


@dataclass(frozen=True)
class Repeatability:
    """Over several series. within_subject_sd_percent: root of the mean of the squared coefficients of variation.

    percent: of each series' mean volume. The coefficients are `COEFFICIENT` times the SDs. Not a number where there is
    no series with two analyses and a volume.
    """

    series: int
    analyses: int
    not_found: int
    within_subject_sd_ml: float
    within_subject_sd_percent: float
    repeatability_coefficient_ml: float
    repeatability_coefficient_percent: float


def move(volume: Volume, shift_voxels: tuple[float, float, float], degrees: tuple[float, float, float]) -> Volume:
    """The patient moved against the grid: turned about the patient's x, y and z through the middle, then shifted.

    Interpolated by cubic splines, which keep the noise; the grid stays as it is. What comes in at the edges is air.
    """
    grid = volume.grid
    turn = _rotation(degrees)
    middle = grid.to_reference((np.array([grid.shape]) - 1) / 2)[0]
    first = middle + turn @ (np.array(grid.geometry.position) - middle) + np.array(shift_voxels) @ grid.step_vectors_mm
    moved = VolumeGeometry.from_components(
        grid.shape,
        spacing=grid.geometry.spacing,
        position=first,
        direction=turn @ np.array(grid.geometry.direction),
        coordinate_system="PATIENT",
    )
    source = volume.hounsfield.astype(np.float32)
    target = Grid(moved, grid.shear_mm)
    return _in_hu(resample(source, grid, target, outside=_AIR_HU, interpolator=sitk.sitkBSpline), volume, grid)


def add_noise(volume: Volume, sd_hu: float, seed: int) -> Volume:
    """White noise on top of the noise there is."""
    noise = np.random.default_rng(seed).standard_normal(volume.grid.shape, np.float32) * sd_hu
    return _in_hu(volume.hounsfield.astype(np.float32) + noise, volume, volume.grid)


def thicken(volume: Volume, start: int) -> Volume:
    """Every two slices averaged to one of twice the thickness; start: the first slice used, 0 or 1."""
    grid = volume.grid
    count = (grid.shape[0] - start) // 2
    pairs = volume.hounsfield[start : start + 2 * count].astype(np.float32).reshape(count, 2, *grid.shape[1:])
    geometry = VolumeGeometry.from_components(
        (count, *grid.shape[1:]),
        spacing=(2 * grid.geometry.spacing[0], *grid.geometry.spacing[1:]),
        position=grid.to_reference(np.array([[start + 0.5, 0, 0]]))[0],
        direction=grid.geometry.direction,
        coordinate_system="PATIENT",
    )
    return _in_hu(pairs.mean(axis=1), volume, Grid(geometry, (2 * grid.shear_mm[0], 2 * grid.shear_mm[1])))


def filter_kernel(volume: Volume, sharpness: float) -> Volume:
    """As of another reconstruction kernel, in the plane: -1 takes away the finest detail, +1 doubles it."""
    hounsfield = volume.hounsfield.astype(np.float32)
    image = sitk.GetImageFromArray(hounsfield)
    row_mm, column_mm = volume.grid.geometry.pixel_spacing
    variance = [(_KERNEL_MM / column_mm) ** 2, (_KERNEL_MM / row_mm) ** 2, 0.0]
    smooth = sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, variance, useImageSpacing=False))
    return _in_hu(hounsfield + sharpness * (hounsfield - smooth), volume, volume.grid)


def _in_hu(hounsfield: NDArray[Any], like: Volume, grid: Grid) -> Volume:
    """Whole HU within the range of the original: splines overshoot, and scanners clip."""
    clipped = np.clip(hounsfield, min(_AIR_HU, like.hounsfield.min()), like.hounsfield.max())
    return Volume(np.rint(clipped).astype(np.int16), grid)


def _rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*(math.radians(angle) for angle in degrees))
    return np.reshape(turn.GetMatrix(), (3, 3))


CHANGES = (
    Change("shift", "half a voxel along every axis", lambda v: move(v, (0.5, 0.5, 0.5), (0, 0, 0))),
    Change("shift", "a third of a slice back", lambda v: move(v, (-1 / 3, 0, 0), (0, 0, 0))),
    Change("shift", "a quarter and three quarters of a pixel", lambda v: move(v, (0, 0.25, 0.75), (0, 0, 0))),
    Change("rotation", "3 degrees about the long axis", lambda v: move(v, (0, 0, 0), (0, 0, 3))),
    Change("rotation", "3 degrees back", lambda v: move(v, (0, 0, 0), (0, 0, -3))),
    Change("rotation", "2 degrees to the side and 2 forward", lambda v: move(v, (0, 0, 0), (2, 2, 0))),
    Change("noise", "10 HU more", lambda v: add_noise(v, 10, 1)),
    Change("noise", "10 HU more, drawn again", lambda v: add_noise(v, 10, 2)),
    Change("noise", "20 HU more", lambda v: add_noise(v, 20, 3)),
    Change("slices", "twice as thick", lambda v: thicken(v, 0)),
    Change("slices", "twice as thick, from the second", lambda v: thicken(v, 1)),
    Change("kernel", "softer", lambda v: filter_kernel(v, -1)),
    Change("kernel", "sharper", lambda v: filter_kernel(v, 1)),
)


def measure_changes(
    volume: Volume, model: Model, series: int, changes: Sequence[Change] = CHANGES, device: str = "cpu"
) -> Iterator[Measured]:
    """Analyse a series as it is and with every change; one that leaves too few slices for the model is left out."""
    options = Options(at=datetime.now(UTC), device=device)
    yield Measured(series, "original", "as it is", segment(volume, model, options)[1].volume_ml)
    for change in changes:
        try:
            _, measurement = segment(change.apply(volume), model, options)
        except UnfitSeries as error:
            print(f"series {series}, {change.kind}, {change.name}: left out: {error}", flush=True)
            continue
        yield Measured(series, change.kind, change.name, measurement.volume_ml)


def repeatability(measured: Sequence[Measured]) -> Repeatability:
    """Of all analyses; a series in which nothing was ever found, or analysed only once, is not counted."""
    volumes = {row.series: [one.volume_ml for one in measured if one.series == row.series] for row in measured}
    counted = [np.array(of) for of in volumes.values() if len(of) > 1 and any(of)]
    sd_ml = _root_mean_square([float(of.std(ddof=1)) for of in counted])
    sd_percent = _root_mean_square([100 * float(of.std(ddof=1) / of.mean()) for of in counted])
    return Repeatability(
        series=len(counted),
        analyses=sum(len(of) for of in counted),
        not_found=sum(row.volume_ml == 0 for row in measured),
        within_subject_sd_ml=sd_ml,
        within_subject_sd_percent=sd_percent,
        repeatability_coefficient_ml=COEFFICIENT * sd_ml,
        repeatability_coefficient_percent=COEFFICIENT * sd_percent,
    )


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values)) if values else math.nan


def describe(measured: Sequence[Measured], model: Model) -> dict[str, Any]:
    """What goes into the model card, in JSON's types: over all changes, for each kind alone, and every analysis."""
    kinds = dict.fromkeys(row.kind for row in measured if row.kind != "original")
    by_kind = {kind: [row for row in measured if row.kind in ("original", kind)] for kind in kinds}
    content = {
        "model": {"name": model.card.name, "version": model.card.version, "sha256": model.card.sha256},
        "statement": _STATEMENT,
        "all": asdict(repeatability(measured)),
        "by_kind": {kind: asdict(repeatability(rows)) for kind, rows in by_kind.items()},
        "measured": [asdict(row) for row in measured],
    }
    return {key: finite(value) for key, value in content.items()}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("repeatability.json"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--record", action="store_true", help="put the coefficient into the bundle's card")
    parser.add_argument("series", type=Path, nargs="+", help="folder of DICOM files, or NIfTI file")
    given = parser.parse_args(arguments)
    if given.record and len(given.bundle) > 1:
        parser.error("--record: of several bundles as one there is no card to put it into")
    model = read_model(given.bundle, given.device, given.flips)
    measured = []
    for number, path in enumerate(given.series, 1):
        for row in measure_changes(read_source(path), model, number, device=given.device):
            measured.append(row)
            print(f"series {number}, {row.kind}, {row.name}: {row.volume_ml:.1f} mL", flush=True)
    content = describe(measured, model)
    given.out.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(content["all"], indent=2))
    if given.record and content["all"]["repeatability_coefficient_percent"] is not None:
        record_repeatability(given.bundle[0], round(content["all"]["repeatability_coefficient_percent"], 1))


if __name__ == "__main__":
    main()

"""The cases that models are judged on: labelled examples of any layout, synthetic CT, single slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.nifti import read_nifti
from pipeline.volume import Volume
from training.datasets import read_example
from training.dicom_folders import read_series_folder
from training.examples import Example, Labelled
from training.grids import upright_grid
from training.mixture import TEST_SEEDS
from training.synthetic_v1 import COARSE_MM, Anatomy, read_anatomies, synthesise

_SHAPE = (80, 112, 128)  # 240 x 336 x 384 mm: larger than a window, so that the window slides
_TARGET = 1


@dataclass(frozen=True, eq=False)
class Case:
    """One case to judge. truth: bool on the grid of the volume. patient: whose cases are not independent of each other.

    plane: of a slice that was repeated to a volume, the index at which it is judged, in two dimensions; else None.
    """

    name: str
    patient: str
    volume: Volume
    truth: NDArray[np.bool_]
    plane: int | None = None

    def __post_init__(self) -> None:
        if self.truth.shape != self.volume.grid.shape:
            raise ValueError(f"{self.name}: a truth of shape {self.truth.shape} on {self.volume.grid.shape}")
        if self.volume.grid.is_sheared:
            raise ValueError(f"{self.name}: the gantry was tilted; surfaces are measured on grids at right angles only")


def read_cases(examples: Iterable[Example], structure: str) -> Iterator[Case]:
    """Read examples as cases; raises as `training.datasets.read_example`, and ValueError for a tilted gantry.

    structure: its name in the label files, or in digits its value or segment number.
    """
    for example in examples:
        labelled = read_example(example, {structure: _TARGET})
        yield Case(example.name, example.patient, labelled.volume, labelled.labels == _TARGET)


def slice_cases(examples: Iterable[Example], structure: str, planes: int, plane_mm: float) -> Iterator[Case]:
    """Pictures, each repeated to a thin volume of `planes`, `plane_mm` apart, and judged in its middle plane."""
    for example in examples:
        yield repeat_slice(read_example(example, {structure: _TARGET}), planes, plane_mm)


def repeat_slice(labelled: Labelled, planes: int, plane_mm: float) -> Case:
    """A volume of one slice as one of many."""
    volume, example = labelled.volume, labelled.example
    _, rows, columns = volume.grid.shape
    _, row_mm, column_mm = volume.grid.geometry.spacing
    hounsfield, truth = (np.repeat(array, planes, axis=0) for array in (volume.hounsfield, labelled.labels == _TARGET))
    grid = upright_grid((planes, rows, columns), (plane_mm, row_mm, column_mm))
    return Case(example.name, example.patient, Volume(_whole_hu(hounsfield), grid), truth, planes // 2)


def read_source(path: Path) -> Volume:
    """A CT series, as a folder of DICOM files or a NIfTI file; raises a kind of `Refused`."""
    return read_nifti(path) if path.is_file() else read_series_folder(path)


def synthetic_cases(folder: Path, seeds: Sequence[int] = TEST_SEEDS) -> Iterator[Case]:
    """Unseen deformations of the anatomies of a folder of training data."""
    yield from deform(read_anatomies(folder / "anatomies"), seeds)


def deform(anatomies: list[Anatomy], seeds: Sequence[int], shape: tuple[int, int, int] = _SHAPE) -> Iterator[Case]:
    """Synthetic CT of the seeds around the pancreas; the anatomies take turns."""
    for seed in seeds:
        sample = synthesise(anatomies[seed % len(anatomies)], shape, seed)
        grid = upright_grid(shape, (COARSE_MM, COARSE_MM, COARSE_MM))
        # Each deformation for itself: that they share their anatomies is said in the protocol.
        volume = Volume(_whole_hu(sample.hounsfield.numpy()), grid)
        yield Case(f"synthetic-{seed}", str(seed), volume, (sample.labels == _TARGET).numpy())


def _whole_hu(hounsfield: NDArray[np.generic]) -> NDArray[np.int16]:
    return np.clip(np.rint(hounsfield), -1024, 3000).astype(np.int16)

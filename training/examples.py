"""What a labelled example is: its files, whose it is, and what its label files show."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.volume import Volume

PIXEL_MM = 0.78
"""Pictures carry no spacing; this is near the mean of abdominal scans."""

_SAME_PATIENT = {"PANCREAS_0025": "PANCREAS_0002", "PANCREAS_0070": "PANCREAS_0002"}
"""Of NIH Pancreas-CT: cases 25 and 70 are crops of case 2, for which the collection's second version left them out."""


@dataclass(frozen=True)
class Options:
    """What files do not say of themselves.

    patient: regular expression with a group `patient`, found in the name of an example; None: the layout's own rule.
    structure: what the masks of picture pairs show. grey_hu: HU of grey 0 and of grey 255. pixel_mm: size of their
        pixels. flipped: they are stored with anterior at the bottom. The values given are those of the 2-D sets made of
        NIH Pancreas-CT.
    automatic: take this node's own automatic segmentations for truth, too.
    """

    patient: str | None = None
    structure: str = "pancreas"
    grey_hu: tuple[float, float] = (0.0, 255.0)
    pixel_mm: float = PIXEL_MM
    flipped: bool = True
    automatic: bool = False


@dataclass(frozen=True)
class Structure:
    """A structure in a label file. values: which of its values mean it; none: all but 0. Of a SEG: segment numbers."""

    name: str
    path: Path
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Example:
    """Files that belong together, of which nothing but headers has been read.

    patient: who must not be on two sides of a split; of DICOM files a digest. images: one file, or those of a series.
    numbered: the label file in which a bare number names a structure, None where there are several.
    """

    name: str
    patient: str
    layout: str
    images: tuple[Path, ...]
    structures: tuple[Structure, ...]
    numbered: Path | None
    options: Options = Options()

    @property
    def files(self) -> tuple[Path, ...]:
        """Images, then label files, each once."""
        return tuple(dict.fromkeys([*self.images, *(structure.path for structure in self.structures)]))

    def find_structure(self, name: str) -> Structure:
        """By name, whose capitals do not matter, or by value or segment number; ValueError where there is none."""
        named = [structure for structure in self.structures if structure.name.casefold() == name.casefold()]
        if named:
            return named[0]
        if name.isdecimal() and self.numbered is not None:
            return Structure(name, self.numbered, (int(name),))
        known = ", ".join(structure.name for structure in self.structures)
        raise ValueError(f"{self.name}: no structure {name!r} among {known}")


@dataclass(frozen=True, eq=False)
class Labelled:
    """An example that was read. labels: uint8 channels on the grid of the volume, (slice, row, column); 0 elsewhere."""

    example: Example
    volume: Volume
    labels: NDArray[np.uint8]


Masks = Callable[[Structure], NDArray[np.bool_]]
"""Reads a structure's mask on the grid of the volume that was read with it."""


def find_patient(name: str, options: Options, usual: str = "(?P<patient>.+)") -> str:
    """The patient in an example's name; ValueError, naming it, where the expression finds none.

    usual: the expression for the whole name where the options give none.
    """
    found = re.search(options.patient, name) if options.patient else re.fullmatch(usual, name)
    if found is None or not found["patient"]:
        raise ValueError(f"{name}: no patient in this name by {options.patient or usual!r}")
    return _SAME_PATIENT.get(found["patient"], found["patient"])


def select(labels: NDArray[np.generic], structure: Structure) -> NDArray[np.bool_]:
    """Where the labels mean a structure."""
    return np.isin(labels, structure.values) if structure.values else np.asarray(labels != 0)

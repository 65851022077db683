"""NIH Pancreas-CT as The Cancer Imaging Archive ships it: DICOM, and labels as NIfTI with an affine that is not theirs.

`.../PANCREAS_0001/STUDY/SERIES/*.dcm` and, anywhere in the same folder, `label0001.nii.gz`. Those who use the labels
take their axes for column, row and slice as in the DICOM, rows towards posterior and slices upwards, whatever the
affine says: OrganSegC2F transposes them and flips nothing; deedsBCV flips their rows, against images of dcm2niix, whose
rows run the other way. That is hearsay, so the image has the last word: a mask lies on one tissue, and a mirrored one
does not.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.nifti import read_nifti
from pipeline.series import open_series, read_volume
from pipeline.volume import Volume
from training.examples import Example, Masks, Options, Structure, find_patient, select

PANCREAS_CT = "nih-pancreas-ct"
_CASE = re.compile(r"PANCREAS_(\d{4})")
_LABEL = re.compile(r"label(\d{4})\.nii(\.gz)?")
_SOFT_TISSUE_HU = (-150, 300)
_PANCREAS_HU = (0, 200)
_MOST_OUTSIDE = 0.1
_CLEARLY_BETTER = 0.85
"""The spread of HU under a mask against that under the same with its rows reversed. On slices of 46 patients of the
collection it is 0.73 at most, where the reversed mask lies on soft tissue at all."""

_ORDERS: dict[str, tuple[slice, ...]] = {
    "as they should be": (slice(None), slice(None)),
    "with rows reversed": (slice(None), slice(None, None, -1)),
    "with slices reversed": (slice(None, None, -1), slice(None)),
    "with slices and rows reversed": (slice(None, None, -1), slice(None, None, -1)),
}

log = logging.getLogger(__name__)


def is_pancreas_ct(folder: Path) -> bool:
    """Whether there are folders of cases and files of labels by the collection's names."""
    return bool(_cases(folder) and _labels(folder))


def find_pancreas_ct(folder: Path, options: Options) -> list[Example]:
    """Every case with DICOM files and a label; one without the other is left out with a warning."""
    cases, labels = _cases(folder), _labels(folder)
    for number in sorted(cases.keys() ^ labels.keys()):
        log.warning("PANCREAS_%s: left out: %s", number, "no label" if number in cases else "no DICOM files")
    examples = []
    for number in sorted(cases.keys() & labels.keys()):
        name = f"PANCREAS_{number}"
        images = tuple(sorted(path for path in cases[number].rglob("*.dcm") if not path.name.startswith("._")))
        structures = (Structure("pancreas", labels[number]),)
        patient = find_patient(name, options)
        examples.append(Example(name, patient, PANCREAS_CT, images, structures, labels[number], options))
    return examples


def _cases(folder: Path) -> dict[str, Path]:
    found = [(_CASE.fullmatch(path.name), path) for path in sorted(folder.rglob("PANCREAS_*"))]
    return {name[1]: path for name, path in found if name and path.is_dir() and next(path.rglob("*.dcm"), None)}


def _labels(folder: Path) -> dict[str, Path]:
    found = [(_LABEL.fullmatch(path.name), path) for path in sorted(folder.rglob("label*.nii*"))]
    return {name[1]: path for name, path in found if name}


def read_pancreas_ct(example: Example) -> tuple[Volume, Masks]:
    """Series and mask; raises a kind of `Refused`, and ValueError where the label does not fit the series."""
    volume = read_volume(open_series(example.images))

    def read_mask(structure: Structure) -> NDArray[np.bool_]:
        labels = read_nifti(structure.path).hounsfield
        if labels.shape != volume.grid.shape:
            raise ValueError(f"{structure.path}: labels of {labels.shape} voxels, a series of {volume.grid.shape}")
        return _put_in_order(select(labels, structure), volume, structure.path)

    return volume, read_mask


def _put_in_order(mask: NDArray[np.bool_], volume: Volume, path: Path) -> NDArray[np.bool_]:
    """The mask of a label whose slices run upwards, unless with another order it lies clearly better on the image."""
    if volume.grid.step_vectors_mm[0, 2] < 0:
        mask = mask[::-1]
    hounsfield = volume.hounsfield.astype(np.float32)
    spreads = {name: _spread(hounsfield[mask[order]]) for name, order in _ORDERS.items()}
    usual, best = next(iter(_ORDERS)), min(spreads, key=lambda name: spreads[name])
    if not np.isfinite(spreads[best]):
        raise ValueError(f"{path}: in no order of its slices and rows does the label lie on soft tissue of the series")
    if spreads[best] >= _CLEARLY_BETTER * spreads[usual]:
        best = usual
    if best != usual:
        log.warning("%s: taken %s, where it lies on the pancreas", path, best)
    return mask[_ORDERS[best]]


def _spread(hounsfield: NDArray[np.float32]) -> float:
    """Standard deviation of HU; infinite where they are not those of soft tissue in the middle of the body."""
    if not hounsfield.size or not _PANCREAS_HU[0] < np.median(hounsfield) < _PANCREAS_HU[1]:
        return np.inf
    low, high = _SOFT_TISSUE_HU
    outside = np.mean((hounsfield < low) | (hounsfield > high))
    return float(np.std(np.clip(hounsfield, low, high))) if outside < _MOST_OUTSIDE else np.inf

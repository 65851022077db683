"""Labelled data as it comes: find what a folder holds, and read it by the readers that analysis uses.

| layout | what |
|---|---|
| `decathlon` | `dataset.json` with `imagesTr/` and `labelsTr/`, of the Medical Segmentation Decathlon or nnU-Net v2 |
| `nifti-pairs` | `images*/NAME.nii.gz` with `labels*/NAME.nii.gz`, or `NAME_orig.nii.gz` with `NAME_STRUCTURE.nii.gz` |
| `nih-pancreas-ct` | `PANCREAS_0001/.../*.dcm` with `label0001.nii.gz`, as The Cancer Imaging Archive ships them |
| `pictures` | `images/NAME.jpg` with `masks/NAME.png`, or `NAME.png` with `NAME_mask.png` |
| `dicom-seg` | DICOM CT series with SEGs that refer to them, in whatever folders: of cases, or this node's archive |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.volume import Volume
from training.dicom_folders import DICOM_SEG, find_dicom, holds_dicom, read_dicom
from training.examples import Example, Labelled, Masks, Options
from training.nifti_folders import DECATHLON, PAIRS, are_pairs, find_decathlon, find_pairs, is_decathlon, read_pair
from training.pancreas_ct import PANCREAS_CT, find_pancreas_ct, is_pancreas_ct, read_pancreas_ct
from training.pictures import PICTURES, are_pictures, find_pictures, read_pictures


@dataclass(frozen=True)
class _Layout:
    recognise: Callable[[Path], bool]
    find: Callable[[Path, Options], list[Example]]
    read: Callable[[Example], tuple[Volume, Masks]]


# In the order in which they are tried: what is recognised by names comes before what is recognised by any DICOM file.
_LAYOUTS = {
    DECATHLON: _Layout(is_decathlon, find_decathlon, read_pair),
    PAIRS: _Layout(are_pairs, find_pairs, read_pair),
    PICTURES: _Layout(are_pictures, find_pictures, read_pictures),
    PANCREAS_CT: _Layout(is_pancreas_ct, find_pancreas_ct, read_pancreas_ct),
    DICOM_SEG: _Layout(holds_dicom, find_dicom, read_dicom),
}

LAYOUTS = tuple(_LAYOUTS)


def find_examples(folder: Path, layout: str | None = None, options: Options | None = None) -> list[Example]:
    """The examples of a folder, in the order of their names; only headers are read.

    layout: one of `LAYOUTS`; None: the first that recognises the folder. Raises ValueError, naming the file or folder,
    where there is no example or one lacks a part.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"no layout {layout!r} among {', '.join(LAYOUTS)}")
    name = layout or next((name for name in LAYOUTS if _LAYOUTS[name].recognise(folder)), None)
    if name is None:
        raise ValueError(f"{folder}: neither {' nor '.join(LAYOUTS)}")
    examples = sorted(_LAYOUTS[name].find(folder, options or Options()), key=lambda example: example.name)
    if not examples:
        raise ValueError(f"{folder}: no labelled example in the layout {name}")
    return examples


def read_example(example: Example, labels: Mapping[str, int]) -> Labelled:
    """Read an example.

    labels: from the names of structures (or their values, or segment numbers, in digits) to channels, 1..255; several
    names may go to one channel. Where structures overlap the later in the mapping covers the earlier.

    Raises ValueError, naming example or file, where a structure is missing or does not fit the image, and a kind of
    `pipeline.errors.Refused` where the image cannot be read.
    """
    volume, read_mask = _LAYOUTS[example.layout].read(example)
    channels = np.zeros(volume.grid.shape, np.uint8)
    for name, channel in labels.items():
        channels[read_mask(example.find_structure(name))] = channel
    return Labelled(example, volume, channels)

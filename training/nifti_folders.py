"""Labelled NIfTI files: Decathlon and nnU-Net folders with their `dataset.json`, and pairs of files by their names."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.nifti import read_nifti
from pipeline.volume import Volume
from training.examples import Example, Masks, Options, Structure, find_patient, select

DECATHLON = "decathlon"
PAIRS = "nifti-pairs"
_SUFFIX = r"(?P<suffix>_0000|_orig|_image|_img|_ct)"
_IMAGE = re.compile(rf"(?P<name>.+?){_SUFFIX}?\.nii(\.gz)?", re.IGNORECASE)


def is_decathlon(folder: Path) -> bool:
    """Whether a `dataset.json` describes the folder."""
    return (folder / "dataset.json").is_file()


def find_decathlon(folder: Path, options: Options) -> list[Example]:
    """The training cases of a `dataset.json`, of the Decathlon or of nnU-Net v2's raw data.

    Raises ValueError, naming the file, unless it is one, of CT in one channel, and every file that it lists is there.
    """
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _check_channel(content)
        names = _read_names(content["labels"])
        pairs = _listed(folder, content) if content.get("training") else _named(folder, content["file_ending"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}" if type(error) is ValueError else f"{path}: not as expected") from error
    return [_example(image, mask, names, DECATHLON, options) for image, mask in pairs]


def _check_channel(content: dict[str, Any]) -> None:
    channels = list((content.get("channel_names") or content["modality"]).values())
    if len(channels) != 1 or str(channels[0]).upper() != "CT":
        raise ValueError(f"images of {' and '.join(map(str, channels))}: only CT in one channel is read")


def _read_names(labels: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> values, from value -> name as the Decathlon has it, or from name -> value or values as nnU-Net has."""
    if all(key.isdecimal() for key in labels):
        labels = {str(name): value for value, name in labels.items()}
    lists = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
    named = {name: tuple(int(value) for value in values) for name, values in lists.items()}
    return {name: values for name, values in named.items() if values != (0,)}


def _listed(folder: Path, content: dict[str, Any]) -> list[tuple[Path, Path]]:
    return [(folder / pair["image"], folder / pair["label"]) for pair in content["training"]]


def _named(folder: Path, ending: str) -> list[tuple[Path, Path]]:
    masks = sorted(path for path in (folder / "labelsTr").glob(f"*{ending}") if not path.name.startswith("._"))
    return [(folder / "imagesTr" / f"{mask.name.removesuffix(ending)}_0000{ending}", mask) for mask in masks]


def _example(image: Path, mask: Path, names: dict[str, tuple[int, ...]], layout: str, options: Options) -> Example:
    for path in (image, mask):
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
    name = mask.name.split(".nii")[0]
    structures = tuple(Structure(structure, mask, values) for structure, values in names.items())
    return Example(name, find_patient(name, options), layout, (image,), structures, mask, options)


def are_pairs(folder: Path) -> bool:
    """Whether there are NIfTI files beside each other, or in folders for images and labels."""
    return bool(_pair_folders(folder)) or any(_is_image(path) for path in folder.glob("*.nii*"))


def find_pairs(folder: Path, options: Options) -> list[Example]:
    """`images*/NAME.nii.gz` with `labels*/NAME.nii.gz`, or `NAME_orig.nii.gz` with `NAME_STRUCTURE.nii.gz` beside it.

    An image may be called `NAME_0000`, `_image`, `_img` or `_ct` as well. Labels in folders of their own have no names:
    "labels" is all of them, and a number one value. Raises ValueError, naming the image, where it has no labels.
    """
    examples = []
    for images, labels in _pair_folders(folder):
        for image in _nifti_files(images):
            name = _name(image)
            masks = [path for path in _nifti_files(labels) if _name(path) == name]
            if len(masks) != 1:
                raise ValueError(f"{image}: {len(masks)} files of labels where one is needed")
            examples.append(_example(image, masks[0], {"labels": ()}, PAIRS, options))
    return examples or _find_beside(folder, options)


def _find_beside(folder: Path, options: Options) -> list[Example]:
    images = {_name(path): path for path in _nifti_files(folder) if _is_image(path)}
    structures: dict[str, list[Structure]] = {name: [] for name in images}
    for path in _nifti_files(folder):
        # The longest name that fits: of p1_orig and p1_late_orig, p1_late_liver belongs to the second.
        owner = max((name for name in images if path.name.startswith(f"{name}_")), key=len, default=None)
        if owner is not None and not _is_image(path):
            name = path.name.removeprefix(f"{owner}_").split(".nii")[0]
            structures[owner].append(Structure(name, path))
    for name, image in images.items():
        if not structures[name]:
            raise ValueError(f"{image}: no file of labels beside it")
    return [
        Example(
            name,
            find_patient(name, options),
            PAIRS,
            (image,),
            tuple(structures[name]),
            structures[name][0].path if len(structures[name]) == 1 else None,
            options,
        )
        for name, image in images.items()
    ]


def _pair_folders(folder: Path) -> list[tuple[Path, Path]]:
    """Folders of images with the folder of their labels; test images come without, and are left out."""
    images = sorted(path for path in folder.glob("images*") if path.is_dir())
    pairs = [(path, path.with_name(path.name.replace("images", "labels", 1))) for path in images]
    return [(path, labels) for path, labels in pairs if labels.is_dir() and _nifti_files(path)]


def _nifti_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.nii*") if not path.name.startswith("._"))


def _name(path: Path) -> str:
    found = _IMAGE.fullmatch(path.name)
    return found["name"] if found else path.name


def _is_image(path: Path) -> bool:
    found = _IMAGE.fullmatch(path.name)
    return found is not None and found["suffix"] is not None


def read_pair(example: Example) -> tuple[Volume, Masks]:
    """Image and masks; raises a kind of `Refused`, and ValueError where they do not lie on one grid."""
    volume = read_nifti(example.images[0])

    @cache
    def read_labels(path: Path) -> NDArray[Any]:
        labels = read_nifti(path)
        if not volume.grid.equals(labels.grid, 1e-2):
            raise ValueError(f"{path}: the labels do not lie on the grid of {example.images[0].name}")
        return labels.hounsfield

    return volume, lambda structure: select(read_labels(structure.path), structure)

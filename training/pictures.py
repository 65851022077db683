"""Folders of picture pairs: axial slices and their masks as JPG or PNG, without spacing and without HU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.volume import Volume
from training.examples import Example, Masks, Options, Structure, find_patient
from training.grids import upright_grid

PICTURES = "pictures"
_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
_LOSSY = {".jpg", ".jpeg"}
_USUAL_PATIENT = r"(?P<patient>.+)[-_ ]\D*\d+"
_EIGHT_BITS = {"1", "L", "LA", "P", "RGB", "RGBA"}
_JPEG_NOISE = 16


def are_pictures(folder: Path) -> bool:
    """Whether there are pictures in `images/` with `masks/` beside, or pictures with a `NAME_mask`."""
    return bool(_pictures(folder / "images") and _pictures(folder / "masks")) or any(
        _is_mask(path) for path in _pictures(folder)
    )


def find_pictures(folder: Path, options: Options) -> list[Example]:
    """`images/NAME.jpg` with `masks/NAME.png`, or `NAME.png` with `NAME_mask.png` beside it; any ending of pictures.

    The usual patient is what stands before the last number: `PANCREAS_0001` of `PANCREAS_0001-1106`. Raises ValueError,
    naming the picture, where it has not one mask, or its name no patient.
    """
    if (folder / "images").is_dir():
        images, masks = _pictures(folder / "images"), _pictures(folder / "masks")
        names = {path: path.stem for path in masks}
    else:
        images = [path for path in _pictures(folder) if not _is_mask(path)]
        names = {path: path.stem[: -len("_mask")] for path in _pictures(folder) if _is_mask(path)}
    by_name: dict[str, list[Path]] = {}
    for path, name in names.items():
        by_name.setdefault(name, []).append(path)
    return [_example(image, by_name.get(image.stem, []), options) for image in images]


def _example(image: Path, masks: list[Path], options: Options) -> Example:
    if len(masks) != 1:
        raise ValueError(f"{image}: {len(masks)} masks of this name where one is needed")
    patient = find_patient(image.stem, options, _USUAL_PATIENT)
    structures = (Structure(options.structure, masks[0]),)
    return Example(image.stem, patient, PICTURES, (image,), structures, masks[0], options)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS and not path.name.startswith("._")
    )


def _is_mask(path: Path) -> bool:
    return path.stem.lower().endswith("_mask")


def read_pictures(example: Example) -> tuple[Volume, Masks]:
    """A volume of one slice, and its masks; raises ValueError, naming the file."""
    options = example.options
    grey = _read_grey(example.images[0], options.flipped)
    low, high = options.grey_hu
    hounsfield = low + grey.astype(np.float32) * ((high - low) / 255)
    grid = upright_grid((1, *grey.shape), (options.pixel_mm,) * 3)

    def read_mask(structure: Structure) -> NDArray[np.bool_]:
        mask = _read_mask(structure.path, options.flipped)
        if mask.shape != grey.shape:
            raise ValueError(f"{structure.path}: a mask of {mask.shape} pixels on a picture of {grey.shape}")
        return mask[None]

    return Volume(hounsfield[None], grid), read_mask


def _read_grey(path: Path, flipped: bool) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            if picture.mode not in _EIGHT_BITS:
                raise ValueError(f"{path}: not a picture of 8 bits, but {picture.mode}")
            grey = np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a picture that can be read") from error
    return grey[::-1] if flipped else grey


def _read_mask(path: Path, flipped: bool) -> NDArray[np.bool_]:
    """0 and 255, or 0 and 1; JPG turns edges, and empty masks, into something near."""
    grey = _read_grey(path, flipped)
    is_lossy, brightest = path.suffix.lower() in _LOSSY, int(grey.max())
    if (_JPEG_NOISE if is_lossy else 1) < brightest < 128:
        raise ValueError(f"{path}: grey up to {brightest}: neither 0 and 255 nor 0 and 1")
    return grey > (0 if brightest == 1 and not is_lossy else 127)

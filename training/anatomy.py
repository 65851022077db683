"""Whole-body label maps, as synthetic CT is made of them: tissues, how deep a voxel lies, where the organs are.

Arrays are slice, row, column in orientation SPL, at 1.5 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as nn_functional

from training.tissues import INDEX, TISSUES, find_tissue

MAP_MM = 1.5
FAR, FARTHEST = 32, 4
_COARSE = 4  # voxels of the map in one of the body's outline
_CLOSING = 6  # coarse voxels that the union of organs is closed by, to make a body around it
_ROOM = 16  # coarse voxels around the map, for the fat of stout bodies
_MARGIN = 10  # voxels around the pancreas in which its distance is known
_STIFF = ("pancreas", "lung", "trachea", "bone", "cartilage")  # tissues that do not grow into the fat around them
_DEEP = ("stomach", "duodenum", "colon", "bowel", "kidney", "bone")  # tissues with a surface unlike their inside


@dataclass(frozen=True, eq=False)
class Distance:
    """Signed distance in mm to a surface, negative inside, on a grid of its own within a map's.

    values: float32 (slice, row, column). origin: of the first voxel, step: its size, in voxels of the map.
    """

    values: Tensor
    origin: Tensor
    step: int = 1

    def at(self, places: Tensor) -> Tensor:
        """Values at places (3, ...) in voxels of the map; beyond the grid the nearest."""
        last = torch.tensor(self.values.shape) - 1
        local = (places.movedim(0, -1) - self.origin) / self.step / last * 2 - 1
        return nn_functional.grid_sample(
            self.values[None, None], local.flip(-1)[None], align_corners=True, padding_mode="border"
        )[0, 0]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A label map. tissue: uint8 indices of TISSUES, fat wherever nothing is labelled.

    beside: uint8, in fat within FARTHEST voxels of a soft tissue: that tissue, and FAR times the distance; else 0.
    depth: uint8, quarters of a millimetre below the surface of the voxel's class, 255 where that does not matter.
    pancreas, hull: distances to the pancreas's surface, and to that of all that is labelled, closed.
    places: indices (n, 3) of the pancreas. organs: for each class of the viscera its centre and radius, in voxels.
    """

    tissue: Tensor
    beside: Tensor
    depth: Tensor
    pancreas: Distance
    hull: Distance
    places: Tensor
    organs: dict[str, tuple[Tensor, float]]


def read_anatomies(folder: Path) -> list[Anatomy]:
    """Every `NAME_117.nii.gz` with its `NAME_names.txt`; raises ValueError where there is none."""
    return [make_anatomy(read_label_map(path), read_names(path)) for path in find_label_maps(folder)]


def find_label_maps(folder: Path) -> list[Path]:
    """The label maps of a folder; raises ValueError where there is none."""
    maps = sorted(folder.glob("*_117.nii.gz"))
    if not maps:
        raise ValueError(f"{folder}: no label map *_117.nii.gz")
    return maps


def read_label_map(path: Path) -> Tensor:
    """Codes, uint8 (slice, row, column), of a label map in NIfTI of any orientation."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    array = np.asarray(image.dataobj).astype(np.uint8).transpose(2, 1, 0)[:, ::-1, ::-1]  # RAS -> SPL
    return torch.from_numpy(array.copy())


def read_names(label_map: Path) -> str:
    """The lines `index name volume` beside a label map."""
    return label_map.with_name(label_map.name.replace("_117.nii.gz", "_names.txt")).read_text(encoding="utf-8")


def make_anatomy(codes: Tensor, names: str) -> Anatomy:
    """Work out what is needed of a label map. codes: uint8; names: lines of `index name ...`."""
    array = np.pad(codes.numpy(), ((0, 0), (1, 1), (1, 1)))  # so that what lies beside the map is not labelled
    classes = {int(line.split()[0]): line.split()[1] for line in names.splitlines()}
    tissue_of = np.full(256, INDEX["fat"], dtype=np.uint8)
    for code, name in classes.items():
        tissue_of[code] = INDEX[find_tissue(name)]
    tissue = tissue_of[array]
    pancreas = tissue == INDEX["pancreas"]
    _add_mesenteric_trunks(tissue)
    beside = _beside(tissue)
    depth = _depth(array, classes)
    depth[beside > 0] = 0
    return Anatomy(
        torch.from_numpy(tissue),
        torch.from_numpy(beside),
        torch.from_numpy(depth),
        _around(pancreas),
        _hull(array > 0),
        torch.from_numpy(np.argwhere(pancreas)),
        _organs(array, classes),
    )


def _depth(array: NDArray[np.uint8], classes: dict[int, str]) -> NDArray[np.uint8]:
    depth = np.full(array.shape, 255, dtype=np.uint8)
    for code, box in enumerate(ndimage.find_objects(array), start=1):
        if box is None or find_tissue(classes[code]) not in _DEEP:
            continue
        inside = array[box] == code
        millimetres = MAP_MM * (ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1, 1:-1] - 0.5)
        depth[box][inside] = np.minimum(4 * millimetres[inside], 254).astype(np.uint8)
    return depth


def _beside(tissue: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Layer by layer outwards from the soft tissues; fat is 0, so that the maximum of neighbours is no fat."""
    grown = np.where(np.isin(tissue, [INDEX[name] for name in _STIFF]), INDEX["fat"], tissue).astype(np.uint8)
    beside = np.zeros_like(tissue)
    for distance in range(1, FARTHEST + 1):
        wider = grown.copy()
        for axis in range(3):
            of, to = np.swapaxes(grown, 0, axis), np.swapaxes(wider, 0, axis)
            np.maximum(to[1:], of[:-1], out=to[1:])
            np.maximum(to[:-1], of[1:], out=to[:-1])
        layer = (wider > 0) & (grown == INDEX["fat"]) & (tissue == INDEX["fat"])
        beside[layer] = wider[layer] + FAR * distance
        grown = np.where(layer, wider, grown)
    return beside


def _add_mesenteric_trunks(tissue: NDArray[np.uint8]) -> None:
    """The superior mesenteric artery and vein, which label maps leave out: down through the fat before the aorta."""
    pancreas, aorta, portal = (np.argwhere(tissue == INDEX[name]) for name in ("pancreas", "aorta", "portal"))
    if not (len(pancreas) and len(portal)):
        return
    vein = portal[portal[:, 0] <= portal[:, 0].min() + 4].mean(0)  # where the portal vein's label ends below
    top = int(pancreas[:, 0].mean())
    for slice_ in range(max(0, top - 60), top):
        here = aorta[aorta[:, 0] == slice_]
        if len(here):
            fall = (top - slice_) * MAP_MM
            front, middle = here[:, 1].min(), here[:, 2].mean()
            _disc(tissue[slice_], "aorta", (front - min(fall, 18) / MAP_MM, middle), 3.2)
            if slice_ < vein[0]:
                row = max(vein[1], front - 24 / MAP_MM)
                _disc(tissue[slice_], "portal", (row, min(vein[2], middle - 14 / MAP_MM)), 5.0)


def _disc(plane: NDArray[np.uint8], name: str, centre: tuple[float, float], radius_mm: float) -> None:
    rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
    near = np.hypot(rows - centre[0], columns - centre[1]) * MAP_MM < radius_mm
    plane[near & (plane == INDEX["fat"])] = INDEX[name]


def _around(pancreas: NDArray[np.bool_]) -> Distance:
    found = ndimage.find_objects(pancreas.astype(np.uint8))
    box = found[0] if found else tuple(slice(0, 2) for _ in range(3))
    box = tuple(slice(max(0, part.start - _MARGIN), part.stop + _MARGIN) for part in box)
    origin = torch.tensor([float(part.start) for part in box])
    return Distance(torch.from_numpy(_signed(pancreas[box], MAP_MM)), origin)


def _hull(labelled: NDArray[np.bool_]) -> Distance:
    body = nn_functional.max_pool3d(torch.from_numpy(labelled)[None, None].float(), _COARSE, ceil_mode=True)
    body = nn_functional.pad(body, (_ROOM,) * 4)
    side = 2 * _CLOSING + 1  # a square in the plane; between slices one voxel is enough
    for sign in (1, -1):
        for kernel in ((3, 1, 1), (1, side, 1), (1, 1, side)):
            body = sign * nn_functional.max_pool3d(sign * body, kernel, 1, tuple(k // 2 for k in kernel))
    middle = (_COARSE - 1) / 2
    origin = torch.tensor([0.0, -_ROOM * _COARSE, -_ROOM * _COARSE]) + middle
    distance = _signed(body[0, 0].numpy() > 0.5, MAP_MM * _COARSE)
    return Distance(torch.from_numpy(ndimage.gaussian_filter(distance, (1, 2, 2))), origin, _COARSE)


def _signed(mask: NDArray[np.bool_], voxel_mm: float) -> NDArray[np.float32]:
    outside, inside = (ndimage.distance_transform_edt(of) for of in (~mask, mask))
    return (voxel_mm * (outside - inside - np.sign(outside - inside) / 2)).astype(np.float32)


def _organs(array: NDArray[np.uint8], classes: dict[int, str]) -> dict[str, tuple[Tensor, float]]:
    """Of the organs in the belly: where they are, and the radius of a ball of their volume."""
    organs = {}
    for code, box in enumerate(ndimage.find_objects(array), start=1):
        if box is not None and TISSUES[find_tissue(classes[code])].label in (1, 2, 3, 4, 5, 6):
            voxels = np.argwhere(array[box] == code)
            centre = voxels.mean(0) + [part.start for part in box]
            organs[classes[code]] = (torch.from_numpy(centre).float(), (0.24 * len(voxels)) ** (1 / 3))
    return organs

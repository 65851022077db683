"""The first synthetic CT, kept as it was: volumes that models are judged on, made otherwise than those they learn from.

Published figures are of the volumes that `training.cases` makes of this; change nothing that changes them. The CT that
models learn from is `training.synthetic`'s. Arrays and tensors are slice, row, column in orientation SPL.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as nn_functional

from training.anatomy import find_label_maps, read_label_map, read_names
from training.synthetic import Sample

_LABELS = 8
_RIMS = (4, 10)  # a lean and a stout body of each map, in 3 mm of fat around the organs
COARSE_MM = 3.0
_FAT, _AIR = 118, 119  # codes of our own, beyond the 117 classes
_BODY_MARGIN = 12  # coarse voxels that the union of organs is closed by, to make a body around it

# Words in a class name -> output label, HU without contrast, HU in a full portal venous phase; the first match counts.
_TISSUES = (
    (("pancreas",), 1, 40, 105),
    (("liver",), 2, 56, 112),
    (("spleen",), 3, 48, 122),
    (("kidney",), 4, 32, 175),
    (("stomach",), 5, 30, 45),
    (("duodenum", "bowel", "colon"), 6, 30, 50),
    (("esophagus",), 0, 35, 50),
    (("aorta", "portal", "vena_cava", "iliac_artery", "iliac_vena"), 7, 42, 160),
    (("artery", "vein", "atrial", "heart", "trunk"), 0, 42, 150),
    (("adrenal",), 0, 25, 75),
    (("gallbladder", "bladder", "cyst"), 0, 10, 12),
    (("lung", "trachea"), 0, -820, -810),
    (("rib", "vertebra", "hip", "femur", "sacrum", "sternum", "scapula", "clavicula", "humerus", "skull"), 0, 280, 300),
    (("",), 0, 52, 64),
)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A label map at 1.5 mm. codes: uint8 (slice, row, column); tissue: for each code its row in the tissues' table."""

    codes: Tensor
    tissue: Tensor

    @cached_property
    def pancreas(self) -> Tensor:
        """Indices (n, 3) of the pancreas."""
        return (self.tissue[self.codes.long()] == 0).nonzero()


def read_anatomies(folder: Path) -> list[Anatomy]:
    """Every `NAME_117.nii.gz` with its `NAME_names.txt`, lean and stout; raises ValueError where there is none."""
    maps = [(read_label_map(path), read_names(path)) for path in find_label_maps(folder)]
    return [make_anatomy(codes, names, rim) for rim in _RIMS for codes, names in maps]


def make_anatomy(codes: Tensor, names: str, rim: int) -> Anatomy:
    """Add fat within and air around the labelled body. names: lines of `index name ...`; rim: of fat, in 3 mm."""
    # Room for the fat and the air around: label maps often end at the skin.
    codes = nn_functional.pad(codes, (2 * _BODY_MARGIN,) * 4)
    body = nn_functional.max_pool3d((codes > 0)[None, None].float(), 2, ceil_mode=True)
    for pool in (_dilate, _erode):  # a closing, wider out than in: it leaves a rim of fat
        body = pool(body, _BODY_MARGIN if pool is _dilate else _BODY_MARGIN - rim)
    body = nn_functional.interpolate(body, size=codes.shape, mode="nearest")[0, 0] > 0
    filled = torch.where(codes > 0, codes, torch.where(body, _FAT, _AIR).to(torch.uint8))
    tissue = torch.full((120,), len(_TISSUES) - 1)
    for line in names.splitlines():
        index, name = line.split()[:2]
        tissue[int(index)] = next(
            row for row, (words, *_) in enumerate(_TISSUES) if any(word in name for word in words)
        )
    return Anatomy(filled, tissue)


def synthesise(anatomy: Anatomy, shape: tuple[int, int, int], seed: int) -> Sample:
    """A synthetic CT of the given shape at 3 mm, near the pancreas; the same seed makes the same sample."""
    generator = torch.Generator().manual_seed(seed)
    codes = _sample_codes(anatomy, shape, generator)
    tissue = anatomy.tissue[codes.long()]
    labels = torch.tensor([row[1] for row in _TISSUES])[tissue]
    labels[codes >= _FAT] = 0
    hounsfield = _paint(codes, tissue, generator)
    share = nn_functional.avg_pool3d(nn_functional.one_hot(labels, _LABELS).permute(3, 0, 1, 2)[None].float(), 2)[0]
    return Sample(_degrade(hounsfield, generator), share.argmax(0))


def _sample_codes(anatomy: Anatomy, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Codes at 1.5 mm of a deformed body: affine and elastic."""
    fine = tuple(2 * n for n in shape)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in fine), indexing="ij")
    grid = torch.stack(axes, -1)
    scale = 1 / _uniform(generator, 0.85, 1.2, 3)
    angles = _uniform(generator, -0.15, 0.15, 3)
    moved = (grid * scale) @ _rotation(angles).T
    coarse = torch.randn(1, 3, 5, 6, 7, generator=generator) * _uniform(generator, 2.0, 6.0, 1)
    moved += nn_functional.interpolate(coarse, size=fine, mode="trilinear", align_corners=True)[0].permute(1, 2, 3, 0)
    centre = anatomy.pancreas.float().mean(0) + _uniform(generator, -1, 1, 3) * torch.tensor([28.0, 22.0, 28.0])
    size = torch.tensor(anatomy.codes.shape, dtype=torch.float32)
    torch.rand(1, generator=generator)  # was: whether to look elsewhere; what is drawn after it must stay what it is
    normal = ((moved + centre) / (size - 1) * 2 - 1).flip(-1)[None]
    # The code for air is moved to 0 and back, so that what lies beyond the map is air.
    shifted = (_AIR - anatomy.codes).float()[None, None]
    return _AIR - nn_functional.grid_sample(shifted, normal, mode="nearest", align_corners=True)[0, 0].round().long()


def _paint(codes: Tensor, tissue: Tensor, generator: torch.Generator) -> Tensor:
    """HU by tissue and phase, with texture, hollow organs with their content, fat and air."""
    plain = torch.tensor([float(row[2]) for row in _TISSUES])
    enhanced = torch.tensor([float(row[3]) for row in _TISSUES])
    phase = 0.0 if torch.rand(1, generator=generator) < 0.4 else float(_uniform(generator, 0.4, 1.1, 1))
    table = plain + phase * (enhanced - plain) + torch.randn(len(_TISSUES), generator=generator) * 6
    table[0] -= _uniform(generator, 0, 25, 1)[0]  # fatty pancreas
    table[1] -= _uniform(generator, 0, 25, 1)[0]  # fatty liver
    hounsfield = table[tissue]
    texture = _field(codes.shape, 12, generator)
    content = _field(codes.shape, 14, generator)
    hollow = (tissue == 4) | (tissue == 5)
    gas = float(_uniform(generator, 0.6, 2.0, 1))
    hounsfield = torch.where(hollow & (content > gas), torch.tensor(-700.0), hounsfield)
    if torch.rand(1, generator=generator) < 0.25:  # oral contrast
        hounsfield = torch.where(hollow & (content < -0.3), torch.tensor(180.0), hounsfield)
    bone = tissue == len(_TISSUES) - 2
    hounsfield = hounsfield + texture * torch.where(bone, 120.0, 7.0)
    fat = -105 + 8 * texture + 60 * (content.abs() < 0.04)  # strands: small vessels in the mesentery
    hounsfield = torch.where(codes == _FAT, fat, hounsfield)
    return torch.where(codes == _AIR, torch.tensor(-1000.0), hounsfield)


def _degrade(hounsfield: Tensor, generator: torch.Generator) -> Tensor:
    """From 1.5 mm to 3 mm: slice thickness, reconstruction blur, noise white and coloured."""
    volume = hounsfield[None, None]
    thickness = int(torch.randint(0, 3, (1,), generator=generator))  # 1.5, 4.5 or 7.5 mm on the fine grid
    if thickness:
        kernel = 2 * thickness + 1
        volume = nn_functional.avg_pool3d(volume, (kernel, 1, 1), 1, (thickness, 0, 0), count_include_pad=False)
    if torch.rand(1, generator=generator) < 0.5:
        volume = nn_functional.avg_pool3d(volume, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    volume = nn_functional.avg_pool3d(volume, 2)
    white = torch.randn(volume.shape, generator=generator)
    coloured = nn_functional.avg_pool3d(white, 3, 1, 1) * 4
    strength = _uniform(generator, 2, 12, 2)
    return (volume + white * strength[0] + coloured * strength[1] * 0.5)[0, 0]


def _field(shape: torch.Size, cell: int, generator: torch.Generator) -> Tensor:
    """A smooth random field of about unit variance; cell: voxels from one random value to the next."""
    coarse = torch.randn(1, 1, *(max(2, n // cell + 2) for n in shape), generator=generator)
    return 1.6 * nn_functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0, 0]


def _uniform(generator: torch.Generator, low: float, high: float, count: int) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _rotation(angles: Tensor) -> Tensor:
    skew = torch.zeros(3, 3)
    skew[0, 1], skew[0, 2], skew[1, 2] = angles
    return torch.matrix_exp(skew - skew.T)


def _dilate(mask: Tensor, voxels: int) -> Tensor:
    # A square in the plane, done row by row and column by column; between slices one voxel is enough.
    for kernel in ((3, 1, 1), (1, 2 * voxels + 1, 1), (1, 1, 2 * voxels + 1)):
        mask = nn_functional.max_pool3d(mask, kernel, 1, tuple(k // 2 for k in kernel))
    return mask


def _erode(mask: Tensor, voxels: int) -> Tensor:
    return 1 - _dilate(1 - mask, voxels)

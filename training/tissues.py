"""Tissues of synthetic CT: their label, their HU by phase of contrast, and which classes of a label map they are.

HU are typical means of adults, put together from: without contrast Lamba et al., AJR 2014;203:1013; pancreas, liver and
vessels Lu et al., Radiology 1996;199:697, and McNulty et al., Radiology 2001;220:97; kidneys Yuh and Cohan, AJR
1999;173:747. What patients differ by is drawn around them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LABELS = {
    0: "background", 1: "pancreas", 2: "liver", 3: "spleen", 4: "kidney", 5: "stomach", 6: "bowel", 7: "vessel",
}  # fmt: skip
PHASES = ("plain", "arterial", "pancreatic", "portal", "delayed")


class Tissue(NamedTuple):
    """label: in the truth. hounsfield: mean HU in each of PHASES. words: parts of the class names in label maps."""

    label: int
    hounsfield: tuple[float, float, float, float, float]
    words: tuple[str, ...] = ()


# The first tissue with a word that is part of a class's name is that class's.
TISSUES = {
    "fat": Tissue(0, (-108, -107, -106, -105, -105)),  # within the body, wherever a map says nothing
    "air": Tissue(0, (-1000, -1000, -1000, -1000, -1000)),
    "skin": Tissue(0, (10, 15, 20, 25, 25)),
    "pancreas": Tissue(1, (40, 86, 114, 104, 80), ("pancreas",)),
    "duct": Tissue(1, (12, 14, 16, 16, 16)),
    "liver": Tissue(2, (57, 65, 78, 110, 94), ("liver",)),
    "spleen": Tissue(3, (48, 112, 128, 121, 97), ("spleen",)),
    "cortex": Tissue(4, (33, 165, 195, 180, 140)),
    "kidney": Tissue(4, (32, 55, 85, 150, 145), ("kidney_left", "kidney_right")),  # its medulla
    "pelvis": Tissue(4, (10, 12, 14, 30, 380)),
    "stomach": Tissue(5, (38, 60, 78, 82, 72), ("stomach",)),
    "duodenum": Tissue(6, (38, 65, 88, 88, 74), ("duodenum",)),
    "colon": Tissue(6, (38, 58, 72, 78, 70), ("colon",)),
    "bowel": Tissue(6, (38, 68, 95, 95, 76), ("small_bowel",)),
    "esophagus": Tissue(0, (35, 48, 60, 66, 62), ("esophagus",)),
    "portal": Tissue(7, (42, 75, 145, 165, 115), ("portal",)),
    "branch": Tissue(0, (42, 130, 170, 158, 112)),  # of the vessels in the fat
    "cava": Tissue(7, (42, 60, 95, 128, 112), ("inferior_vena_cava", "iliac_vena")),
    "aorta": Tissue(7, (42, 320, 265, 158, 115), ("aorta", "iliac_artery")),
    "heart": Tissue(0, (42, 230, 210, 150, 115), ("artery", "vein", "atrial", "heart", "trunk", "superior_vena")),
    "adrenal": Tissue(0, (20, 55, 72, 66, 50), ("adrenal",)),
    "bile": Tissue(0, (9, 9, 9, 10, 12), ("gallbladder", "bladder", "cyst")),
    "trachea": Tissue(0, (-950, -950, -950, -950, -950), ("trachea",)),
    "lung": Tissue(0, (-840, -830, -830, -830, -835), ("lung",)),
    "cartilage": Tissue(0, (105, 108, 110, 112, 112), ("cartilage",)),
    "bone": Tissue(0, (170, 180, 185, 190, 190), (
        "rib", "vertebra", "hip", "femur", "sacrum", "sternum", "scapula", "clavicula", "humerus", "skull",
    )),
    "cortical": Tissue(0, (520, 520, 520, 520, 520)),
    "muscle": Tissue(0, (52, 56, 60, 64, 62), ("",)),
}  # fmt: skip
INDEX = {name: index for index, name in enumerate(TISSUES)}
_USUAL = (0.28, 0.08, 0.17, 0.37, 0.10)  # how often each phase is drawn


def find_tissue(class_name: str) -> str:
    """The tissue of a class of a label map."""
    return next(name for name, row in TISSUES.items() if any(word in class_name for word in row.words))


def draw_hounsfield(generator: torch.Generator) -> Tensor:
    """Mean HU of each tissue in one patient: between two phases, with more or less contrast agent."""
    phases = torch.tensor([row.hounsfield for row in TISSUES.values()])
    phase = int(torch.multinomial(torch.tensor(_USUAL), 1, generator=generator))
    share, dose, fatty = torch.rand(3, generator=generator).tolist()
    later = min(max(phase, 1), len(PHASES) - 2) + 1 if phase else 0  # nothing lies between plain and arterial
    between = phases[:, phase] + 0.6 * share * (phases[:, later] - phases[:, phase])
    enhancement = (between - phases[:, 0]) * (0.7 + 0.6 * dose)
    spread = 4 + 0.08 * enhancement.abs()
    table = phases[:, 0] + enhancement + spread * torch.randn(len(phases), generator=generator)
    table[INDEX["liver"]] -= 45 * max(0.0, fatty - 0.7) / 0.3
    return table

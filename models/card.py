"""What a trained model needs and says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONVENTIONS = ("monai", "nnunet", "spacingd")
BLENDINGS = ("gaussian", "constant")
PADDINGS = ("constant", "replicate")
AXES = {"L": "LR", "R": "LR", "A": "AP", "P": "AP", "S": "SI", "I": "SI"}
"""The patient's axes by the directions along them."""


@dataclass(frozen=True)
class Card:
    """A model's contract with the pipeline, checked when made.

    name, version: they stand in SEG, SR and history; volumes are compared only where both agree.
    sha256: of the weights files, one after another, lower-case hex; the identity of the model. Of several bundles as
        one see `models.ensemble`.
    orientation: towards what the three tensor axes increase, e.g. "SPL" (slices to Superior, rows to Posterior,
        columns to Left): one each of S/I, A/P, L/R.
    spacing_mm: voxel size along the tensor axes.
    window_hu: (low, high); HU are clipped to it and scaled linearly to `scaled_to`. None: nothing is clipped, and the
        least and greatest HU on the model's grid take the place of low and high; voxels of exactly 0 HU become the mean
        of the others, as MONAI's NormalizeIntensityd(nonzero=True) with ScaleIntensityd makes them; with "spacingd".
    patch: shape of a sliding window, in voxels.
    overlap: share of a window that the next one covers, 0 <= overlap < 1.
    labels: output channel -> name; channel 0 is the background.
    target: the channel that is measured.
    minimum_slices: fewer source slices than this are refused.
    statement: one or two sentences on what the model may be trusted with; printed at start and in the SR.
    scaled_to: what the network sees at both ends of the window.
    convention: whose way of bringing a volume to the network's grid and windows and back the model was trained and
        judged with, one of `CONVENTIONS`; pipeline.preprocess, infer and postprocess say what each of them means.
    blending: how logits count where windows overlap, one of `BLENDINGS`: less towards a window's faces, or all alike.
    padding: what is put around a volume smaller than a patch, one of `PADDINGS`: 0, or the nearest voxel.
    members: networks whose probabilities are averaged.
    flips: out of "LPS", in this order: the patient's axes to mirror along. Probabilities are averaged over all ways to
        mirror along some of them, 2 to the power of their number. For models that learnt from mirrored images.
    repeatability_percent: the model's repeatability coefficient, 2.77 within-subject SD, in percent of the volume, as
        measured by re-analysis (Bland and Altman 1986): smaller changes may be error. None: not measured.
    """

    name: str
    version: str
    sha256: str
    orientation: str
    spacing_mm: tuple[float, float, float]
    window_hu: tuple[float, float] | None
    patch: tuple[int, int, int]
    overlap: float
    labels: Mapping[int, str]
    target: int
    statement: str
    minimum_slices: int = 20
    network: str = ""
    network_arguments: Mapping[str, Any] = field(default_factory=dict)
    scaled_to: tuple[float, float] = (0.0, 1.0)
    convention: str = "monai"
    blending: str = "gaussian"
    padding: str = "constant"
    members: int = 1
    flips: str = ""
    repeatability_percent: float | None = None

    def __post_init__(self) -> None:
        if sorted(["LR", "AP", "SI"], key=str) != sorted(_pairs(self.orientation), key=str):
            raise ValueError(f"orientation {self.orientation!r}: one each of S/I, A/P and L/R is needed")
        if self.target not in self.labels or self.target == 0:
            raise ValueError(f"target channel {self.target} is not one of the labels {dict(self.labels)}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap {self.overlap}: 0 <= overlap < 1 is needed")
        if min(self.spacing_mm) <= 0 or min(self.patch) <= 0:
            raise ValueError("spacing_mm and patch must be positive")
        if self.window_hu is not None and self.window_hu[0] >= self.window_hu[1]:
            raise ValueError(f"window_hu {self.window_hu}: low must be below high")
        if self.scaled_to[0] >= self.scaled_to[1]:
            raise ValueError(f"scaled_to {self.scaled_to}: low must be below high")
        if self.window_hu is None and self.convention != "spacingd":
            raise ValueError(f"convention {self.convention!r} needs a window_hu")
        for name, known in (("convention", CONVENTIONS), ("blending", BLENDINGS), ("padding", PADDINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known are {', '.join(known)}")
        self._check_passes()

    def _check_passes(self) -> None:
        if not isinstance(self.members, int) or self.members < 1:
            raise ValueError(f"members {self.members}: a model has one or more")
        if self.flips != "".join(axis for axis in "LPS" if axis in self.flips):
            raise ValueError(f"flips {self.flips!r}: each of L, P and S once or not at all, in this order")

    @property
    def passes(self) -> int:
        """How often a model looks at a series: each member, each way to mirror."""
        return self.members * 2 ** len(self.flips)

    def axis(self, towards: str) -> int:
        """Which of the tensor's axes runs along the patient's: 0 slice, 1 row, 2 column; of L or R, A or P, S or I."""
        return _pairs(self.orientation).index(AXES[towards])


def _pairs(orientation: str) -> list[str]:
    return [AXES.get(letter, "?") for letter in orientation]

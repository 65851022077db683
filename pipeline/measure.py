"""Segmentation -> Measurement, with what a reader must know about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.volume import ConfidenceKind, Segmentation, Volume

FEWEST_SLICES = 6
"""Below this many slices across the organ, the slices at its ends decide about a third of its volume."""

UNENHANCED_BELOW_HU = 60.0
"""Parenchyma without contrast medium lies at 30 to 50 HU, in the pancreatic and the portal venous phase above 80."""

LIKELY_HU = (-20.0, 200.0)
"""A mean outside of this is no pancreas: fat below; bone, vessels in the arterial phase or oral contrast above."""

PUBLISHED_ML = (18.8, 139.8)
"""Least and largest pancreas of 204 adults of 20 to 80 years on CT (doi:10.1007/s00261-018-1793-8)."""

LARGEST_SHARE_LEFT_OUT = 0.05
"""Share of all that was found that may lie in pieces beside the largest without a word."""

LOW_CONFIDENCE = 0.7
"""Mean probability in the mask, or mean Dice between passes, below which the model itself was in doubt."""


class Flag(StrEnum):
    """Why a measurement is not what it seems; none changes the number."""

    NOTHING_FOUND = "nothing-found"
    TOUCHES_BORDER = "touches-border"
    FEW_SLICES = "few-slices"
    NO_CONTRAST = "no-contrast"
    UNLIKELY_HU = "unlikely-hu"
    IMPLAUSIBLE_VOLUME = "implausible-volume"
    SEVERAL_COMPONENTS = "several-components"
    LOW_CONFIDENCE = "low-confidence"
    INCOMPLETE_SERIES = "incomplete-series"

    @property
    def meaning(self) -> str:
        """One sentence for the report."""
        return _MEANINGS[self]


_MEANINGS = {
    Flag.NOTHING_FOUND: (
        "The model found no voxel of the structure in this series, which is no measurement of 0 mL: it may lie outside "
        "of the scanned range, may have been removed, or the model may have missed it."
    ),
    Flag.TOUCHES_BORDER: "The structure reaches the edge of the images: the volume is a lower bound.",
    Flag.FEW_SLICES: f"Fewer than {FEWEST_SLICES} slices cross the structure: its volume is coarse.",
    Flag.NO_CONTRAST: (
        f"The mean inside the outline is below {UNENHANCED_BELOW_HU:g} HU: this looks like a scan without contrast "
        "medium, on which the structure is harder to tell from bowel."
    ),
    Flag.UNLIKELY_HU: (
        f"The mean inside the outline is not between {LIKELY_HU[0]:g} and {LIKELY_HU[1]:g} HU: this is hardly the "
        "structure."
    ),
    Flag.IMPLAUSIBLE_VOLUME: (
        f"The volume lies outside of {PUBLISHED_ML[0]:g} to {PUBLISHED_ML[1]:g} mL, the range of 204 adults "
        "(doi:10.1007/s00261-018-1793-8): look at the outline."
    ),
    Flag.SEVERAL_COMPONENTS: (
        f"More than {LARGEST_SHARE_LEFT_OUT:.0%} of what the model found lies in separate pieces, which are left out: "
        "only the largest piece is measured."
    ),
    Flag.LOW_CONFIDENCE: (
        "The mean probability inside the outline or, of a model that looks several times, the mean Dice between what "
        f"it found each time, is below {LOW_CONFIDENCE:g}: the model is unsure."
    ),
    Flag.INCOMPLETE_SERIES: (
        "Instances of the series are missing: the structure may continue beyond those that are here."
    ),
}


@dataclass(frozen=True)
class Measurement:
    """What was measured of one structure.

    volume_ml: voxel_count * voxel_volume_mm3 / 1000. mean_hu: None where nothing was found. slice_count: slices that
    hold the structure. confidence, components, left_out_ml, confidence_kind, spread_ml: as in `Segmentation`.
    """

    volume_ml: float
    voxel_count: int
    voxel_volume_mm3: float
    confidence: float
    mean_hu: float | None
    slice_count: int
    components: int
    left_out_ml: float
    flags: tuple[Flag, ...]
    confidence_kind: ConfidenceKind = ConfidenceKind.MEAN_PROBABILITY
    spread_ml: float | None = None


def measure(segmentation: Segmentation, volume: Volume) -> Measurement:
    """Measure a mask by the true geometry of its voxels; mask and volume must lie on one grid (ValueError)."""
    if not segmentation.grid.equals(volume.grid):
        raise ValueError("the segmentation does not lie on the grid of the volume")
    count = int(np.count_nonzero(segmentation.mask))
    voxel_volume_mm3 = segmentation.grid.voxel_volume_mm3
    mean_hu = float(volume.hounsfield[segmentation.mask].mean(dtype=np.float64)) if count else None
    return Measurement(
        volume_ml=count * voxel_volume_mm3 / 1000,
        voxel_count=count,
        voxel_volume_mm3=voxel_volume_mm3,
        confidence=segmentation.confidence,
        mean_hu=mean_hu,
        slice_count=int(segmentation.mask.any(axis=(1, 2)).sum()),
        components=segmentation.components,
        left_out_ml=segmentation.left_out_ml,
        flags=(Flag.NOTHING_FOUND,) if mean_hu is None else _flags(segmentation, mean_hu),
        confidence_kind=segmentation.confidence_kind,
        spread_ml=segmentation.spread_ml,
    )


def _flags(segmentation: Segmentation, mean_hu: float) -> tuple[Flag, ...]:
    mask = segmentation.mask
    volume_ml = int(np.count_nonzero(mask)) * segmentation.grid.voxel_volume_mm3 / 1000
    holds = {
        Flag.TOUCHES_BORDER: _touches_border(mask),
        Flag.FEW_SLICES: mask.any(axis=(1, 2)).sum() < FEWEST_SLICES,
        Flag.NO_CONTRAST: LIKELY_HU[0] <= mean_hu < UNENHANCED_BELOW_HU,
        Flag.UNLIKELY_HU: not LIKELY_HU[0] <= mean_hu <= LIKELY_HU[1],
        Flag.IMPLAUSIBLE_VOLUME: not PUBLISHED_ML[0] <= volume_ml <= PUBLISHED_ML[1],
        Flag.SEVERAL_COMPONENTS: (
            segmentation.left_out_ml > LARGEST_SHARE_LEFT_OUT * (volume_ml + segmentation.left_out_ml)
        ),
        Flag.LOW_CONFIDENCE: segmentation.confidence < LOW_CONFIDENCE,
    }
    return tuple(flag for flag, is_so in holds.items() if is_so)


def _touches_border(mask: NDArray[np.bool_]) -> bool:
    faces = (mask[0], mask[-1], mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1])
    return any(face.any() for face in faces)

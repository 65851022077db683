"""Grids of volumes that have none: synthetic CT and single slices."""

from __future__ import annotations

import numpy as np
from highdicom import VolumeGeometry

from pipeline.volume import Grid

_SPL = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])  # slices to Superior, rows to Posterior, columns to Left, in LPS


def upright_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """A grid towards Superior, Posterior and Left that begins at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = _SPL * np.array(spacing_mm)
    return Grid(VolumeGeometry(affine, shape, coordinate_system="PATIENT"))

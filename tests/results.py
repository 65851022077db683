"""A finding on the phantom that no flip or turn maps onto itself, for the tests of what is written of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom

from pipeline.measure import Flag, Measurement
from pipeline.priors import Change, Prior, Priors, Report, Verdict
from pipeline.series import Series, open_series
from pipeline.volume import Segmentation
from tests.phantom import PhantomOptions, write_series

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def scan_phantom(folder: Path, **options: Any) -> Series:
    """A small scan of the phantom, with voxels of three different sides."""
    small: dict[str, Any] = {"shape": (12, 40, 48), "spacing_mm": (5.0, 3.0, 4.0)}
    return open_series(write_series(folder, PhantomOptions(**{**small, **options})))


def scan_enhanced(folder: Path) -> Series:
    """The same scan as one multi-frame file whose frames are in no order of position."""
    slices = [pydicom.dcmread(path) for path in write_series(folder, PhantomOptions((12, 40, 48), (5.0, 3.0, 4.0)))]
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(slices, "1.2.3.4", 4, "1.2.3.5", 1)
    pixels, groups = enhanced.pixel_array, enhanced.PerFrameFunctionalGroupsSequence
    order = np.random.default_rng(3).permutation(len(groups))
    enhanced.PixelData = pixels[order].tobytes()
    enhanced.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
    path = folder / "enhanced.dcm"
    enhanced.save_as(path, enforce_file_format=True)
    return open_series([path])


def mark(series: Series) -> Segmentation:
    """A block with a horn on one side, apart from the border, in slices 3 to 8."""
    mask = np.zeros(series.grid.shape, bool)
    mask[3:8, 12:18, 20:33] = True
    mask[6:9, 16:25, 29:33] = True
    mask[4, 12, 20] = False
    return Segmentation(mask, series.grid, 0.9)


def describe(segmentation: Segmentation, *flags: Flag) -> Measurement:
    """The measurement of a mask with the flags as given."""
    count = int(segmentation.mask.sum())
    voxel_volume_mm3 = segmentation.grid.voxel_volume_mm3
    volume_ml, mean_hu = count * voxel_volume_mm3 / 1000, 41.3 if count else None
    slices = int(segmentation.mask.any(axis=(1, 2)).sum())
    return Measurement(volume_ml, count, voxel_volume_mm3, 0.9, mean_hu, slices, 1, 0.0, flags)


def nothing(series: Series) -> Measurement:
    """The measurement where nothing was found."""
    return Measurement(0.0, 0, series.grid.voxel_volume_mm3, 0.0, None, 0, 0, 0.0, (Flag.NOTHING_FOUND,))


def remember(revised: bool = False) -> Priors:
    """Two volumes of before: one to compare with, whose report is known, and a lower bound of another model."""
    sr = "1.2.840.10008.5.1.4.1.1.88.34"
    within = Change(-2.5, -3.1, 412.4, Verdict.WITHIN, "within measurement error", ("kernel Br40, before B30f",))
    apart = Change(17.5, 29.2, 900.0, Verdict.NOT_COMPARABLE, "not comparable: measured by m 1 and by threshold 1")
    volumes = (
        Prior("20230715", 60.0, True, "m 1", apart, None),
        Prior("20241115103000", 80.0, False, "threshold 1", within, Report("1.2.3", "1.2.3.4", sr, "1.2.3.4.5")),
    )
    before = Report("1.2.9", "1.2.9.4", sr, "1.2.9.4.5")
    known = Priors(volumes, "Below 10 % within measurement error.", "20260101101500", 10.0)
    return replace(known, edition=2, predecessor=before) if revised else known

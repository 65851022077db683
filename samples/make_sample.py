"""Make `ge-discovery-abdomen/` out of the series it was cut from.

    python samples/make_sample.py SOURCE_FOLDER

SOURCE_FOLDER holds the 99 slices of ACRIN-FLT-Breast_001, series ...24805941, as TCIA gives them. Fifty of them, from
the lung bases to below the kidneys, are written as JPEG-LS lossless with every other attribute as it came.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import JPEGLSLossless

SERIES_INSTANCE_UID = "1.3.6.1.4.1.14519.5.2.1.7009.2401.307437172854557023978824805941"
TOP_MM, BOTTOM_MM = -442.5, -650.75
"""Patient z of the first and last slice kept; the pancreas lies between about -500 and -590."""


def make_sample(source: Path, target: Path) -> int:
    """Write the slices between TOP_MM and BOTTOM_MM to `target`, top first; return their number."""
    instances = [pydicom.dcmread(path) for path in sorted(source.glob("*.dcm"))]
    series = [one for one in instances if one.SeriesInstanceUID == SERIES_INSTANCE_UID]
    kept = [one for one in series if BOTTOM_MM <= _z_mm(one) <= TOP_MM]
    target.mkdir(parents=True, exist_ok=True)
    for number, instance in enumerate(sorted(kept, key=_z_mm, reverse=True), start=1):
        _write_compressed(instance, target / f"{number:04d}.dcm")
    return len(kept)


def _z_mm(instance: Dataset) -> float:
    return float(instance.ImagePositionPatient[2])


def _write_compressed(instance: Dataset, path: Path) -> None:
    stored = instance.pixel_array.copy()
    instance.compress(JPEGLSLossless, generate_instance_uid=False)
    instance.save_as(path)
    if not np.array_equal(pydicom.dcmread(path).pixel_array, stored):
        raise RuntimeError(f"{path.name}: the compressed pixels differ from the source")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    folder = Path(__file__).parent / "ge-discovery-abdomen"
    written = make_sample(parser.parse_args().source, folder)
    raise SystemExit(0 if written == 50 else f"{written} slices written where 50 were expected")

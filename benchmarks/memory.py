"""Peak memory of `dicomnode analyse` on series far larger than a usual one, made from the sample series.

Needs 3 GB of free disk in the temporary folder and some minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from analyse import SAMPLE, run
from pydicom.uid import ExplicitVRLittleEndian
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Size:
    """A series: slices of side x side pixels, and the peak that the project allows itself, GB (10^9 bytes)."""

    slices: int
    side: int
    bound_gb: float


SIZES = (Size(2000, 512, 6.0), Size(800, 1024, 8.0))


def write_series(folder: Path, size: Size) -> None:
    """The sample stretched: its slices repeated, 1 mm apart, its pixels repeated to the side asked for."""
    sources = [pydicom.dcmread(path) for path in sorted(SAMPLE.glob("*.dcm"))]
    for number, instance in enumerate(sources):
        factor = size.side // instance.Rows
        pixels = np.kron(instance.pixel_array, np.ones((factor, factor), np.uint16)).astype(np.uint16)
        instance.Rows, instance.Columns = pixels.shape
        instance.PixelSpacing = [spacing / factor for spacing in instance.PixelSpacing]
        instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        instance.PixelData = pixels.tobytes()
        instance["PixelData"].is_undefined_length = False
        for index in range(number * size.slices // len(sources), (number + 1) * size.slices // len(sources)):
            instance.ImagePositionPatient[2] = float(-index)
            instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
            instance.InstanceNumber = index + 1
            instance.save_as(folder / f"{index:05d}.dcm")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    table = Table("series", "peak, GB", "bound, GB", "seconds")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as temporary:
            source, out = Path(temporary) / "series", Path(temporary) / "out"
            source.mkdir()
            write_series(source, size)
            measured = run(source, out)
        name = f"{size.slices} slices of {size.side} x {size.side}"
        table.add_row(name, f"{measured.peak_mb / 1000:.2f}", f"{size.bound_gb:g}", f"{measured.wall_s:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

"""Milliseconds per slice of each decoder, slices per second of `read_volume`, and with --memory its peak memory.

Other work on the machine disturbs the times: each is the best of several, and the ratios say more than the numbers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.pixels.decoders.base import get_decoder
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "samples" / "ge-discovery-abdomen"
SYNTAXES = (
    *(uid.JPEGLosslessSV1, uid.JPEGLossless, uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless),
    *(uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2K, uid.RLELossless, uid.DeflatedExplicitVRLittleEndian),
)
ENCODERS: dict[str, Callable[[NDArray[np.int16]], bytes]] = {
    uid.HTJ2KLossless: lambda stored: imagecodecs.htj2k_encode(stored, reversible=True),
    uid.HTJ2K: lambda stored: imagecodecs.htj2k_encode(stored, 5e-5, reversible=False),
    uid.JPEGLosslessSV1: lambda stored: lossless_jpeg(stored, 1),
    uid.JPEGLossless: lambda stored: lossless_jpeg(stored, 6),
}
READ = "import sys; from pathlib import Path; from pipeline.series import open_series, read_volume; "
READ += "print(read_volume(open_series(sorted(Path(sys.argv[1]).glob('*.dcm')))).hounsfield.nbytes)"


def lossless_jpeg(stored: NDArray[np.int16], predictor: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(stored.view(np.uint16), lossless=True, predictor=predictor, bitspersample=16))


def transcode(instance: Dataset, stored: NDArray[np.int16], syntax: uid.UID) -> None:
    instance.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    instance.add_new("PixelData", "OW", stored.tobytes())
    instance["PixelData"].is_undefined_length = False
    instance.Rows, instance.Columns = stored.shape
    if syntax in ENCODERS:
        instance.PixelData = encapsulate([ENCODERS[syntax](stored)])
        instance["PixelData"].is_undefined_length = True
    elif syntax.is_encapsulated:
        options = {uid.JPEG2000: {"j2k_cr": [8]}, uid.JPEGLSNearLossless: {"jls_error": 2}}
        instance.compress(syntax, generate_instance_uid=False, **options.get(syntax, {}))
    instance.file_meta.TransferSyntaxUID = syntax


def best_s(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def compare_decoders(instances: list[Dataset], repeats: int) -> Table:
    table = Table("transfer syntax", "decoder", "ms per slice", "of imagecodecs", title="512 x 512 slices, 16 bits")
    for syntax in SYNTAXES:
        if not syntax.is_encapsulated:
            continue
        for instance, stored in [(one, one.pixel_array) for one in instances]:
            transcode(instance, stored, syntax)
        plugins = sorted(get_decoder(syntax).available_plugins, key=lambda name: name != "imagecodecs")
        ours = 0.0
        for plugin in plugins:
            # Of each slice by itself the best: a short time is disturbed less often than a long one.
            each = [
                best_s(lambda one=one, by=plugin: pixel_array(one, decoding_plugin=by), repeats) for one in instances
            ]
            milliseconds = 1000 * sum(each) / len(each)
            ours = ours or milliseconds
            table.add_row(syntax.keyword, plugin, f"{milliseconds:.2f}", f"{milliseconds / ours:.2f}")
    return table


def compare_cores(folder: Path, repeats: int) -> Table:
    from pipeline.series import open_series, read_volume

    cores = os.sched_getaffinity(0)
    table = Table("transfer syntax", "1 core", f"{len(cores)} cores", "ratio", title="slices per second of read_volume")
    for syntax in (uid.ExplicitVRLittleEndian, *SYNTAXES):
        paths = []
        for source in sorted(SAMPLE.glob("*.dcm")):
            instance = pydicom.dcmread(source)
            transcode(instance, instance.pixel_array, syntax)
            paths.append(folder / source.name)
            instance.save_as(paths[-1])
        series = open_series(paths)
        seconds = []
        for allowed in ({min(cores)}, cores):
            os.sched_setaffinity(0, allowed)
            seconds.append(best_s(lambda series=series: read_volume(series), repeats))
        one, every = (len(paths) / value for value in seconds)
        table.add_row(syntax.keyword, f"{one:.0f}", f"{every:.0f}", f"{every / one:.2f}")
    return table


def write_long(folder: Path, slices: int, side: int) -> None:
    """A series of that many slices with the same picture, JPEG-LS, at steps of 0.5 mm."""
    instance = pydicom.dcmread(min(SAMPLE.glob("*.dcm")))
    transcode(instance, np.kron(instance.pixel_array, np.ones((side // 512,) * 2, np.int16)), uid.JPEGLSLossless)
    for index in range(slices):
        instance.InstanceNumber = index + 1
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = f"2.25.{10**30 + index}"
        instance.ImagePositionPatient = [0, 0, 0.5 * index]
        instance.save_as(folder / f"{index:04}.dcm")


def measure_memory(table: Table, slices: int, side: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_long(Path(folder), slices, side)
        started = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-c", READ, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        volume_gb = int(child.stdout.read()) / 1e9
        _, _, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
    row = f"{volume_gb:.2f}", f"{usage.ru_maxrss * 1024 / 1e9:.2f}", f"{seconds:.0f}"
    table.add_row(f"{slices} x {side} x {side}", *row)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--slices", type=int, default=4, help="slices of the sample that each decoder reads")
    options.add_argument("--memory", action="store_true", help="also read very long series; needs 1 GB of disk")
    chosen = options.parse_args()
    console = Console()
    instances = [pydicom.dcmread(path) for path in sorted(SAMPLE.glob("*.dcm"))[: chosen.slices]]
    sys.path.insert(0, str(ROOT))
    import pipeline.decoders  # noqa: F401  # makes imagecodecs known to pydicom

    console.print(compare_decoders(instances, chosen.repeats))
    with tempfile.TemporaryDirectory() as folder:
        console.print(compare_cores(Path(folder), chosen.repeats))
    if chosen.memory:
        table = Table("series", "volume, GB", "peak of the process, GB", "seconds", title="memory of reading")
        for slices, side in ((2000, 512), (800, 1024)):
            measure_memory(table, slices, side)
        console.print(table)


if __name__ == "__main__":
    main()

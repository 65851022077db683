"""Decompression bombs and absurd sizes are refused before memory is given to them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless

from pipeline import series
from pipeline.errors import UnfitSeries
from pipeline.limits import ClippedReader
from pipeline.series import open_series
from tests.absurd import write_absurd_files
from tests.phantom import PhantomOptions, write_series

ROOT = Path(__file__).parents[2]

# What the pipeline says, and what the listener does with it: it only looks at the header.
EXPECTED = {
    "deflated-bomb": ("a deflated data set of more than 1024 MiB", "refused: C000"),
    "nested-undefined": ("a damaged or truncated DICOM file", "refused: C000"),
    "nested-with-lengths": ("read", "read"),  # nobody looks into this sequence
    "many-items": ("more than 200000 items", "refused: C000"),
    "longest-length": ("", "refused: A900"),  # it swallows the rest of the file, the identifiers too
    "rows-and-columns": ("Rows (0028,0010) of 65535", "read"),
    "frames": ("Number of Frames (0028,0008) of 2147483647", "read"),
    "negative-frames": ("Number of Frames (0028,0008) of -2147483648", "read"),
    "bits": ("", "read"),
    "jpeg-2000-size": ("a JPEG 2000 image of 65535 x 65535", "read"),
    "jpeg-2000-frames": ("Number of Frames (0028,0008) of 2147483647", "read"),
    "jpeg-ls-size": ("a JPEG-LS frame of 65535 x 65535", "read"),
    "rle-bomb": ("cannot be decoded", "read"),
    "longest-fragment": ("", "read"),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("absurd")
    assert sorted(write_absurd_files(folder)) == sorted(EXPECTED)
    done = subprocess.run(
        [sys.executable, "-m", "tests.absurd", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("kind", EXPECTED)
def test_an_absurd_file_is_refused_with_little_memory(judged: dict[str, dict[str, str]], kind: str) -> None:
    reason, listener = EXPECTED[kind]
    pipeline = judged[kind]["pipeline"]
    if reason != "read":
        assert pipeline.startswith("refused: ")
        assert f"{kind}.dcm" in pipeline
    assert reason in pipeline
    assert judged[kind]["listener"] == listener


def test_a_series_that_would_unfold_to_far_more_than_ct_does_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_series(tmp_path, PhantomOptions(shape=(2, 1024, 1024), transfer_syntax=JPEG2000Lossless))
    open_series(paths)
    for path in paths:
        empty_pixels(path)
    open_series(paths)  # so little of it that nobody minds
    monkeypatch.setattr(series, "_SMALL_BYTES", 1 << 20)
    with pytest.raises(UnfitSeries, match=r"0001\.dcm.* KiB of files would unfold to 4 MiB"):
        open_series(paths)


def empty_pixels(path: Path) -> None:
    instance = pydicom.dcmread(path)
    instance.decompress()
    instance.PixelData = bytes(len(instance.PixelData))
    instance.compress(JPEG2000Lossless, generate_instance_uid=False)
    instance.save_as(path)


def test_a_file_is_never_asked_for_more_than_it_has(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    with ClippedReader(file) as reader:
        assert (reader.read(4), reader.read(2**62), reader.read(2**62), reader.read()) == (b"0123", b"456789", b"", b"")
        reader.seek(20)
        assert reader.read(2**62) == b""
        reader.seek(8)
        assert reader.read() == b"89"

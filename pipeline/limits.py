"""What a DICOM file may ask for, looked at before memory and time are given to it.

pydicom makes an object of every item of a sequence, makes room for whatever a length says, and inflates a deflated data
set as a whole: a file of a few bytes could ask for gigabytes.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

from pydicom.uid import DeflatedExplicitVRLittleEndian

MOST_HEADER_BYTES = 32 << 20
"""Of what comes before the pixel data. A multi-frame CT of 4,000 frames has some 12 MB of functional groups."""

MOST_ITEMS = 200_000
"""Of sequences and of encapsulated pixel data, in one file. A multi-frame CT has some fifteen for each frame."""

MOST_INFLATED_BYTES = 1 << 30
"""Of a deflated data set: two thousand frames of 512 x 512."""

_ITEM = b"\xfe\xff\x00\xe0"
_SYNTAX = DeflatedExplicitVRLittleEndian.encode()
_STEP_BYTES, _MOST_EXPANSION = 1 << 16, 16


class Excessive(ValueError):
    """The file asks for more than any CT image needs."""


class ClippedReader(io.BufferedReader):
    """Asks for no more than the file has left: pydicom asks for any length, and Python makes room for it first."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises OSError."""
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read that many bytes, or all."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def check_file(blob: bytes) -> None:
    """Raise Excessive where a DICOM file (PS3.10) has too many items or inflates to too much; zlib.error on damage."""
    start = _data_set_start(blob)
    if not _is_deflated(blob, start):
        return _check_items(blob)
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for begin in range(start, len(blob), _STEP_BYTES):
        rest = blob[begin : begin + _STEP_BYTES]
        while rest and not inflater.eof:  # beyond the end may be padding, which would stay unconsumed for ever
            size += len(inflater.decompress(rest, _MOST_EXPANSION * _STEP_BYTES))
            rest = inflater.unconsumed_tail
        if size > MOST_INFLATED_BYTES:
            raise Excessive(f"a deflated data set of more than {MOST_INFLATED_BYTES >> 20} MiB")
    return None


def header_part(blob: bytes) -> bytes:
    """So much of a DICOM file as its header may take; a deflated data set is stored as it is, but marked as before.

    Raises Excessive where it has too many items, zlib.error where it is damaged.
    """
    start = _data_set_start(blob)
    if not _is_deflated(blob, start):
        part = blob[:MOST_HEADER_BYTES]
        _check_items(part)
        return part
    part = zlib.decompressobj(-zlib.MAX_WBITS).decompress(memoryview(blob)[start:], MOST_HEADER_BYTES)
    _check_items(part)
    stored = zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS)
    return blob[:start] + stored.compress(part) + stored.flush()


def _check_items(data_set: bytes) -> None:
    if data_set.count(_ITEM) > MOST_ITEMS:
        raise Excessive(f"more than {MOST_ITEMS} items")


def _data_set_start(blob: bytes) -> int:
    return 144 + int.from_bytes(blob[140:144], "little")  # (0002,0000) FileMetaInformationGroupLength, PS3.10 7.1


def _is_deflated(blob: bytes, start: int) -> bool:
    return _SYNTAX in blob[:start]

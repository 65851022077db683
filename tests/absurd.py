"""Files that ask for far more than they are, and a judge that reads them with little memory.

`python -m tests.absurd FOLDER` reads every file of the folder as the pipeline and as the listener do, in a process that
may take no more than some memory beyond what it has, and says in JSON what became of each.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from tests.phantom import PhantomOptions, write_series

SIDE = 8
_ROOM_BYTES = 400 << 20
_SEQUENCE = b"\x08\x00\x40\x11SQ\0\0"  # ReferencedImageSequence
_ITEM, _UNDEFINED = b"\xfe\xff\x00\xe0", b"\xff\xff\xff\xff"


def write_absurd_files(folder: Path) -> list[str]:
    """One file of each kind; their names without suffix."""
    (plain,) = write_series(folder, PhantomOptions(shape=(1, SIDE, SIDE)))
    blob = plain.read_bytes()
    plain.unlink()
    for name, build in _KINDS.items():
        (folder / f"{name}.dcm").write_bytes(build(blob))
    return list(_KINDS)


def _split(blob: bytes) -> tuple[bytes, bytes]:
    start = 144 + int.from_bytes(blob[140:144], "little")
    return blob[:start], blob[start:]


def _before_patient(blob: bytes, element: bytes) -> bytes:
    """The file with an element put where it belongs: before group 0010."""
    place = blob.index(b"\x10\x00\x10\x00PN")
    return blob[:place] + element + blob[place:]


def _nested_undefined(blob: bytes) -> bytes:
    return _before_patient(blob, (_SEQUENCE + _UNDEFINED + _ITEM + _UNDEFINED) * 10_000)


def _nested_with_lengths(blob: bytes) -> bytes:
    element = b""
    for _ in range(10_000):
        item = _ITEM + struct.pack("<I", len(element)) + element
        element = _SEQUENCE + struct.pack("<I", len(item)) + item
    return _before_patient(blob, element)


def _many_items(blob: bytes) -> bytes:
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    return _before_patient(blob, _SEQUENCE + _UNDEFINED + (_ITEM + bytes(4)) * 1_000_000 + end)


def _longest_length(blob: bytes) -> bytes:
    return _before_patient(blob, b"\x08\x00\x81\x11UT\0\0\xfe\xff\xff\xff")


def _set(blob: bytes, **attributes: object) -> bytes:
    instance = pydicom.dcmread(BytesIO(blob))
    for keyword, value in attributes.items():
        setattr(instance, keyword, value)
    return _encode(instance)


def _encode(instance: pydicom.Dataset) -> bytes:
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _deflated(blob: bytes, gibibytes: int = 4) -> bytes:
    """Zeros without end behind the data set, which deflate to a thousandth."""
    head, data_set = _split(_set_syntax(blob, DeflatedExplicitVRLittleEndian))
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    start = deflate.compress(zlib.decompress(data_set, -zlib.MAX_WBITS)) + deflate.flush(zlib.Z_FULL_FLUSH)
    zeros = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return head + start + zeros * (gibibytes << 10) + deflate.flush()


def _set_syntax(blob: bytes, syntax: str) -> bytes:
    instance = pydicom.dcmread(BytesIO(blob))
    instance.file_meta.TransferSyntaxUID = syntax
    return _encode(instance)


def _encapsulated(blob: bytes, syntax: str, stream: bytes, **attributes: object) -> bytes:
    instance = pydicom.dcmread(BytesIO(blob))
    instance.file_meta.TransferSyntaxUID = syntax
    instance.PixelData = encapsulate([stream])
    instance["PixelData"].is_undefined_length = True
    return _set(_encode(instance), **attributes)


_IMAGE = np.zeros((SIDE, SIDE), np.uint16)


def _jpeg_2000(blob: bytes) -> bytes:
    stream = imagecodecs.jpeg2k_encode(_IMAGE, codecformat="J2K", reversible=True)
    return _encapsulated(blob, JPEG2000Lossless, stream.replace(struct.pack(">2I", SIDE, SIDE), b"\0\0\xff\xff" * 2))


def _jpeg_2000_of_many_frames(blob: bytes) -> bytes:
    stream = imagecodecs.jpeg2k_encode(_IMAGE, codecformat="J2K", reversible=True)
    return _encapsulated(blob, JPEG2000Lossless, stream, NumberOfFrames=2**31 - 1)


def _jpeg_ls(blob: bytes) -> bytes:
    stream = imagecodecs.jpegls_encode(_IMAGE)
    return _encapsulated(blob, JPEGLSLossless, stream.replace(struct.pack(">2H", SIDE, SIDE), b"\xff\xff" * 2))


def _longest_fragment(blob: bytes) -> bytes:
    """The only fragment says that it has 4 GiB; dcmread copies pixel data as they are, a decoder goes by the length."""
    whole = _encapsulated(blob, RLELossless, b"a fragment")
    start = whole.index(b"a fragment")
    return whole[: start - 4] + b"\xf0\xff\xff\xff" + whole[start:]


def _rle(blob: bytes) -> bytes:
    runs = b"\x81\x00" * 4_000_000  # 128 bytes of each pair
    return _encapsulated(blob, RLELossless, struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13) + runs + runs)


_KINDS: dict[str, Callable[[bytes], bytes]] = {
    "deflated-bomb": _deflated,
    "nested-undefined": _nested_undefined,
    "nested-with-lengths": _nested_with_lengths,
    "many-items": _many_items,
    "longest-length": _longest_length,
    "rows-and-columns": lambda blob: _set(blob, Rows=65535, Columns=65535),
    "frames": lambda blob: _set(blob, NumberOfFrames=2**31 - 1),
    "negative-frames": lambda blob: _set(blob, NumberOfFrames=-(2**31)),
    "bits": lambda blob: _set(blob, BitsAllocated=4096),
    "jpeg-2000-size": _jpeg_2000,
    "jpeg-2000-frames": _jpeg_2000_of_many_frames,
    "jpeg-ls-size": _jpeg_ls,
    "rle-bomb": _rle,
    "longest-fragment": _longest_fragment,
}


def _judge(path: Path) -> dict[str, str]:
    from dicomnode.receiver import Unacceptable, _read_header
    from pipeline.decoding import read_hounsfield
    from pipeline.errors import Refused
    from pipeline.planes import read_instance

    try:
        read_hounsfield(read_instance(path).planes)
        pipeline = "read"
    except Refused as error:
        pipeline = f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - MemoryError among them
        pipeline = type(error).__name__
    try:
        _read_header(path.read_bytes())
        listener = "read"
    except Unacceptable as error:
        listener = f"refused: {error.status:04X}"
    except Exception as error:  # noqa: BLE001
        listener = type(error).__name__
    return {"pipeline": pipeline, "listener": listener}


def _limit_memory(room_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + room_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    files = sorted(Path(sys.argv[1]).glob("*.dcm"))
    import dicomnode.receiver  # noqa: F401 - what importing takes does not count
    import pipeline.series  # noqa: F401

    _limit_memory(_ROOM_BYTES)
    sys.stdout.write(json.dumps({path.stem: _judge(path) for path in files}))

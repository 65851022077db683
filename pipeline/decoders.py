"""Which decoder reads which transfer syntax, and one decoder that pydicom does not know: imagecodecs.

imagecodecs lets other threads run while it decodes, unlike the bindings that pydicom knows: docs/decisions/0005.
"""

from __future__ import annotations

import imagecodecs
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.streams import check_jpeg_2000, check_jpeg_lossless, check_jpeg_ls, check_rle

_NAME = "imagecodecs"

# For each syntax, what looks a stream over, and what then decodes it. OpenJPEG reads HTJ2K, too, and unlike OpenJPH
# notices where a stream is cut off.
_CODECS = {
    JPEGLosslessSV1: (check_jpeg_lossless, imagecodecs.jpeg8_decode),
    JPEGLossless: (check_jpeg_lossless, imagecodecs.jpeg8_decode),
    JPEGLSLossless: (check_jpeg_ls, imagecodecs.jpegls_decode),
    JPEGLSNearLossless: (check_jpeg_ls, imagecodecs.jpegls_decode),
    JPEG2000Lossless: (check_jpeg_2000, imagecodecs.jpeg2k_decode),
    JPEG2000: (check_jpeg_2000, imagecodecs.jpeg2k_decode),
    HTJ2KLossless: (check_jpeg_2000, imagecodecs.jpeg2k_decode),
    HTJ2KLosslessRPCL: (check_jpeg_2000, imagecodecs.jpeg2k_decode),
    HTJ2K: (check_jpeg_2000, imagecodecs.jpeg2k_decode),
}

# One decoder for each syntax, so that voxels do not depend on what else is installed. JPEG Baseline and Extended are
# not here: CT is never 8-bit, and 12 bits with loss are hardly ever met.
DECODERS = {
    ExplicitVRLittleEndian: "",
    ImplicitVRLittleEndian: "",
    DeflatedExplicitVRLittleEndian: "",
    **dict.fromkeys([*_CODECS, RLELossless], _NAME),
}


def is_available(uid: str) -> bool:
    """Whether the decoder of this module reads a transfer syntax; pydicom asks for it."""
    return DECODERS.get(UID(uid)) == _NAME


def decode_frame(stream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame of the size that `runner` gives, for pydicom. Raises ValueError or RuntimeError on damage."""
    if runner.transfer_syntax == RLELossless:
        return _decode_rle(stream, runner)
    check, decode = _CODECS[UID(runner.transfer_syntax)]
    check(stream, runner.rows, runner.columns)
    voxels = decode(stream)
    runner.set_option("bits_allocated", 8 * voxels.itemsize)
    return voxels.tobytes()


def _decode_rle(stream: bytes, runner: DecodeRunner) -> bytes:
    sample_bytes = runner.bits_allocated // 8
    check_rle(stream, sample_bytes)
    size = runner.rows * runner.columns * sample_bytes
    # With the size given it allocates no more than that, whatever the segments unpack to.
    voxels = bytes(imagecodecs.dicomrle_decode(stream, f"<u{sample_bytes}", out=size))
    if len(voxels) != size:
        raise ValueError(f"{len(voxels)} bytes in an RLE frame of {runner.rows} x {runner.columns}")
    return voxels


def _register() -> None:
    for uid in filter(is_available, DECODERS):
        decoder = get_decoder(uid)
        if _NAME not in decoder.available_plugins:
            decoder.add_plugin(_NAME, (__name__, decode_frame.__name__))


_register()
DECODABLE_TRANSFER_SYNTAXES: tuple[str, ...] = tuple(
    uid for uid, plugin in DECODERS.items() if not plugin or plugin in get_decoder(uid).available_plugins
)
"""UIDs of the transfer syntaxes whose CT pixel data the decoders installed here read; the listener negotiates these."""

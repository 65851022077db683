"""Which decoder reads which transfer syntax."""

from __future__ import annotations

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
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

# One decoder for each syntax, so that voxels do not depend on what else is installed, and one that raises on damage:
# GDCM ends the whole process on some damaged streams, and so reads only JPEG lossless, which no other does, and not
# before `check_lossless`. JPEG Baseline and Extended are not here: CT is never 8-bit, and no decoder here reads 12-bit
# samples.
DECODERS = {
    ExplicitVRLittleEndian: "",
    ImplicitVRLittleEndian: "",
    DeflatedExplicitVRLittleEndian: "",
    JPEGLSLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEGLosslessSV1: "gdcm",
    JPEGLossless: "gdcm",
    RLELossless: "pydicom",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000: "pylibjpeg",
    HTJ2K: "pylibjpeg",
}
DECODABLE_TRANSFER_SYNTAXES: tuple[str, ...] = tuple(
    uid for uid, plugin in DECODERS.items() if not plugin or plugin in get_decoder(uid).available_plugins
)
"""UIDs of the transfer syntaxes whose CT pixel data the decoders installed here read; the listener negotiates these."""

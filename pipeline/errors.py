"""Every reason the pipeline has for not measuring, as a type.

Refused                 the input will never be measured, however often it is tried
├── NotImageData        no DICOM, no CT, an empty folder, an unreadable or truncated file
├── NotASlice           an object beside the slices of a volume: a localizer, a report, a projection
├── UnfitSeries         CT, but not one the model may be used on (localizer, too few slices ...)
├── UnfitGeometry       positions, spacing or orientation that do not make one regular grid
└── Undecodable         pixel data that no decoder here can read
Exhausted               memory ran out; the same input may pass later or in smaller steps
"""

import struct
import zlib

from pydicom.errors import BytesLengthException, InvalidDicomError

UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    OSError,  # of sequences in memory too
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom, pynetdicom and decoders raise on damaged input; each was met with truncated or altered bytes."""


class Refused(Exception):
    """The input is not measured, and trying again will not help; `str(error)` is the reason for a human.

    The text names the file or the attribute at fault and holds no patient name or identifier.
    """


class NotImageData(Refused):
    """Nothing here is a CT image: no DICOM, an empty folder, a truncated file."""


class NotASlice(Refused):
    """A DICOM object that is no slice of a CT volume; beside slices it is left out, alone it is no series."""

    def __init__(self, name: str, reason: str) -> None:
        """name: of the image or file. reason: without the name."""
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class UnfitSeries(Refused):
    """CT images, but not a series that this model may measure."""


class UnfitGeometry(Refused):
    """The slices do not lie on one regular grid in patient space."""


class Undecodable(Refused):
    """The pixel data of an instance cannot be decoded."""


class Exhausted(Exception):
    """Memory of the host or of the accelerator ran out while the series was analysed."""

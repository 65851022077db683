"""Which images of a CT series are no slices of its volume, by ImageType (PS3.3 C.7.6.1.1.2, C.8.2.1.1.1)."""

from __future__ import annotations

from collections.abc import Iterable

NO_SLICES = {
    "LOCALIZER": "a localizer",
    "MPR": "a multi-planar reformat",
    "REFORMATTED": "a multi-planar reformat",
    "MIP": "a maximum intensity projection",
    "MAX_IP": "a maximum intensity projection",
    "MINIP": "a minimum intensity projection",
    "MIN_IP": "a minimum intensity projection",
    "PROJECTION IMAGE": "a projection",
    "VRT": "a volume rendering",
    "VOLUME RENDERED": "a volume rendering",
    "SSD": "a shaded surface",
    "SCREEN SAVE": "a screen capture",
    "DOSE_INFO": "a dose page",
}
"""Values of ImageType, in capitals, and what an image with such a value is."""


def find_no_slice(values: Iterable[str]) -> str | None:
    """The first of ImageType's values, in capitals, by which the image is no slice; None: it may be one."""
    return next((plain for value in values if (plain := value.strip().upper()) in NO_SLICES), None)

"""Planes -> Hounsfield units: decoding with every core."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from pipeline.decoders import DECODERS
from pipeline.errors import UNREADABLE, Undecodable
from pipeline.limits import ClippedReader
from pipeline.planes import Plane

AIR_HU = -1024.0
"""Padding, and whatever a scanner writes below air, is raised to this."""


def read_hounsfield(planes: Sequence[Plane]) -> NDArray[np.int16] | NDArray[np.float32]:
    """Decode planes of one size into HU by their modality LUTs (PS3.3 C.11.1): an array of (slice, row, column).

    Padding and whatever lies below air becomes -1024 HU. int16 where every slope and intercept is whole, else float32.
    Raises `Undecodable` naming the file.
    """
    is_whole = all(plane.slope.is_integer() and plane.intercept.is_integer() for plane in planes)
    shape = (len(planes), planes[0].rows, planes[0].columns)
    hounsfield = np.empty(shape, np.int16 if is_whole else np.float32)
    workers = os.cpu_count() or 1

    def fill(indices: Sequence[int]) -> None:
        for index, decoded in zip(indices, _decode([planes[index] for index in indices]), strict=True):
            np.clip(decoded, None, np.iinfo(np.int16).max, out=hounsfield[index], casting="unsafe")

    with ThreadPoolExecutor(workers) as pool:  # threads do: the decoders let each other run
        for _ in pool.map(fill, _parts(planes, workers)):
            pass
    return hounsfield


def _parts(planes: Sequence[Plane], count: int) -> Iterator[Sequence[int]]:
    """Indices of planes for one thread each: those of one file, a multi-frame file's in up to `count` parts."""
    of_file: dict[Path, list[int]] = defaultdict(list)
    for index, plane in enumerate(planes):
        of_file[plane.path].append(index)
    for indices in of_file.values():
        # A deflated file is inflated as a whole, once.
        parts = 1 if planes[indices[0]].transfer_syntax == DeflatedExplicitVRLittleEndian else count
        step = -(-len(indices) // parts)
        yield from (indices[start : start + step] for start in range(0, len(indices), step))


def _decode(planes: Sequence[Plane]) -> Iterator[NDArray[np.float64]]:
    """Decode planes of ONE file into HU, in the order given: arrays of shape (row, column).

    Raises `Undecodable` naming the file.
    """
    first = planes[0]
    plugin = DECODERS[UID(first.transfer_syntax)]
    try:
        with ClippedReader(first.path) as file:
            # pydicom reads frame by frame from a file, but cannot inflate one.
            is_deflated = first.transfer_syntax == DeflatedExplicitVRLittleEndian
            source = pydicom.dcmread(file) if is_deflated else file
            arrays = iter_pixels(source, indices=[plane.frame for plane in planes], decoding_plugin=plugin)
            for plane, stored in zip(planes, arrays, strict=True):
                yield _to_hounsfield(stored, plane)
    except UNREADABLE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]  # the decoder's own words come last
        raise Undecodable(f"{first.path.name}: the pixel data cannot be decoded ({reason.strip()})") from error


def _to_hounsfield(stored: NDArray[np.integer[Any]], plane: Plane) -> NDArray[np.float64]:
    if stored.shape != (plane.rows, plane.columns):
        raise ValueError(f"{stored.shape} voxels where {(plane.rows, plane.columns)} are declared")
    # float64: whole slopes and intercepts give exact whole numbers, whatever the stored type.
    hounsfield = stored.astype(np.float64) * plane.slope + plane.intercept
    if plane.padding is not None:
        low, high = plane.padding
        hounsfield[(stored >= low) & (stored <= high)] = AIR_HU
    return np.maximum(hounsfield, AIR_HU, out=hounsfield)

"""NIfTI files in and out, for whoever has no DICOM."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from highdicom import VolumeGeometry

from pipeline.errors import NotImageData, UnfitGeometry
from pipeline.preprocess import resample
from pipeline.volume import Grid, Segmentation, Volume


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI CT in HU; its axes k, j, i become slice, row, column, its world axes RAS the LPS of DICOM.

    Voxels that are not finite become 0. Raises `NotImageData` where the file cannot be read, is truncated or is not one
    volume of numbers, `UnfitGeometry` where its voxels do not lie on a rectangular grid.
    """
    try:
        image = sitk.ReadImage(str(path), imageIO="NiftiImageIO")
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise UnfitGeometry(f"{path.name}: the axes of the image are not at right angles") from error
        raise NotImageData(f"{path.name}: not a NIfTI image that can be read") from error
    size = image.GetSize()
    if image.GetNumberOfComponentsPerPixel() != 1 or len(size) not in (3, 4) or (len(size) == 4 and size[3] != 1):
        raise NotImageData(f"{path.name}: not one volume of numbers: size {size}")
    _check_whole(path, image)
    if len(size) == 4:
        image = image[:, :, :, 0]
    voxels = sitk.GetArrayFromImage(image)
    whole = np.issubdtype(voxels.dtype, np.integer) and voxels.min() >= -32768 and voxels.max() <= 32767
    return Volume(voxels.astype(np.int16 if whole else np.float32), Grid(_geometry(image)))


def write_nifti(segmentation: Segmentation, path: Path) -> None:
    """Write a mask as 0 and 1, uint8, with the geometry of its grid; the name's ending decides on compression.

    A sheared grid, which ITK's readers refuse, is resampled to an upright one that covers it.
    """
    mask, grid = segmentation.mask, segmentation.grid
    if grid.is_sheared:
        upright = _upright(grid)
        mask, grid = resample(mask.astype(np.float32), grid, upright, outside=0.0) > 0.5, upright
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetOrigin(grid.geometry.position)
    image.SetSpacing(tuple(reversed(grid.geometry.spacing)))
    image.SetDirection(tuple(float(cosine) for cosine in grid.geometry.direction[:, ::-1].ravel()))
    sitk.WriteImage(image, str(path), useCompression=True)


def _upright(grid: Grid) -> Grid:
    """The grid without its shear, its planes enlarged by as much as the last lies beside the first."""
    beside = np.divide(grid.shear_mm, grid.geometry.spacing[1:]) * (grid.shape[0] - 1)
    before, after = np.floor(np.minimum(beside, 0)).astype(int), np.ceil(np.maximum(beside, 0)).astype(int)
    padding = [[0, 0], *([-int(low), int(high)] for low, high in zip(before, after, strict=True))]
    return Grid(grid.geometry.pad(padding))


def _check_whole(path: Path, image: sitk.Image) -> None:
    """Count the bytes: the NIfTI reader takes what a truncated file lacks for zeros and says nothing."""
    voxels_at = float(image.GetMetaData("vox_offset"))
    needed = voxels_at + image.GetNumberOfPixels() * int(image.GetMetaData("bitpix")) // 8
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            length = sum(len(block) for block in iter(lambda: file.read(2**20), b""))
    except (OSError, EOFError, zlib.error) as error:
        raise NotImageData(f"{path.name}: truncated") from error
    if length < needed:
        raise NotImageData(f"{path.name}: truncated: {length} bytes where {needed:.0f} are needed")


def _geometry(image: sitk.Image) -> VolumeGeometry:
    """The grid of a SimpleITK image, whose axes are column, row, slice and whose world is LPS already."""
    return VolumeGeometry.from_components(
        tuple(reversed(image.GetSize())),
        spacing=tuple(reversed(image.GetSpacing())),
        position=image.GetOrigin(),
        direction=np.reshape(image.GetDirection(), (3, 3))[:, ::-1],
        coordinate_system="PATIENT",
    )

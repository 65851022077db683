"""The cases that models are judged on: NIfTI pairs, DICOM CT with SEG, synthetic CT, single slices."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import torch
from highdicom import VolumeGeometry
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import SegmentationStorage

from pipeline.nifti import read_nifti
from pipeline.series import Series, open_series, read_volume
from pipeline.volume import Grid, Volume
from training.data import TEST_SEEDS, read_anatomies
from training.slices import PIXEL_MM, Slice, read_slices
from training.synthetic import COARSE_MM, Anatomy, synthesise

_SHAPE = (80, 112, 128)  # 240 x 336 x 384 mm: larger than a window, so that the window slides
_SPL = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])  # slices to Superior, rows to Posterior, columns to Left, in LPS
_TARGET = 1
_IMAGES = re.compile(r"(?P<name>.+?)(_0000|_orig|_image|_img|_ct)?\.nii(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Case:
    """One case to judge. truth: bool on the grid of the volume. patient: whose cases are not independent of each other.

    plane: of a slice that was repeated to a volume, the index at which it is judged, in two dimensions; else None.
    """

    name: str
    patient: str
    volume: Volume
    truth: NDArray[np.bool_]
    plane: int | None = None

    def __post_init__(self) -> None:
        if self.truth.shape != self.volume.grid.shape:
            raise ValueError(f"{self.name}: a truth of shape {self.truth.shape} on {self.volume.grid.shape}")
        if self.volume.grid.is_sheared:
            raise ValueError(f"{self.name}: the gantry was tilted; surfaces are measured on grids at right angles only")


def read_cases(folder: Path, label: int) -> Iterator[Case]:
    """The cases of a folder, in the order of their names; raises ValueError, naming what does not fit.

    Of NIfTI files `images*/NAME.nii.gz` and `labels*/NAME.nii.gz`, as the Decathlon and nnU-Net (`NAME_0000`) have
    them, or pairs `NAME_orig.nii.gz` and `NAME_STRUCTURE.nii.gz` in one folder; otherwise each subfolder is a case and
    holds one CT series and one SEG of it.
    label: the value of the structure in the label files, or its segment number.
    """
    pairs = _nifti_pairs(folder)
    for name, image, mask in pairs:
        yield _read_pair(name, image, mask, label)
    if pairs:
        return
    series = sorted(path for path in folder.iterdir() if path.is_dir())
    if not series:
        raise ValueError(f"{folder}: neither pairs of NIfTI files nor folders of DICOM files")
    for path in series:
        yield _read_dicom(path, label)


def _nifti_pairs(folder: Path) -> list[tuple[str, Path, Path]]:
    images = sorted(path for part in sorted(folder.glob("images*")) for path in part.glob("*.nii*"))
    beside = not images
    images = images or sorted(path for path in folder.glob("*.nii*") if _is_image(path))
    pairs = []
    for image in (path for path in images if not path.name.startswith("._")):
        found = _IMAGES.fullmatch(image.name)
        name = found["name"] if found else image.name
        masks = [path for path in folder.glob(f"{name}_*.nii*") if path != image] if beside else []
        masks += [path for part in folder.glob("labels*") for path in part.glob(f"{name}.nii*")]
        if len(masks) != 1:
            raise ValueError(f"{image.name}: {len(masks)} files of labels where one is needed")
        pairs.append((name, image, masks[0]))
    return pairs


def _is_image(path: Path) -> bool:
    found = _IMAGES.fullmatch(path.name)
    return found is not None and found[2] is not None


def _read_pair(name: str, image: Path, mask: Path, label: int) -> Case:
    volume, labels = read_nifti(image), read_nifti(mask)
    if not volume.grid.equals(labels.grid, 1e-2):
        raise ValueError(f"{name}: image and labels do not lie on one grid")
    return Case(name, name, volume, labels.hounsfield == label)


def read_source(path: Path) -> Volume:
    """A CT series, as a folder of DICOM files or a NIfTI file; raises a kind of `Refused`."""
    return read_nifti(path) if path.is_file() else read_volume(open_series(_split_files(path)[0]))


def _read_dicom(folder: Path, segment: int) -> Case:
    images, results = _split_files(folder)
    if len(results) != 1:
        raise ValueError(f"{folder.name}: {len(results)} SEG objects where one is needed")
    series = open_series(images)
    # Reports leave the house: of the patient's identifier they hold a digest.
    patient = hashlib.sha256(str(series.first.get("PatientID", folder.name)).encode()).hexdigest()[:12]
    return Case(folder.name, patient, read_volume(series), _read_segment(series, results[0], segment))


def _split_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The DICOM files of a folder and its subfolders: all but the SEGs, and the SEGs."""
    kinds: dict[Path, str] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
            kinds[path] = str(header.get("SOPClassUID", ""))
        except InvalidDicomError:
            continue  # a licence or a list beside the images
    results = [path for path, kind in kinds.items() if kind == SegmentationStorage]
    return [path for path in kinds if path not in results], results


def _read_segment(series: Series, path: Path, segment: int) -> NDArray[np.bool_]:
    """A segment on the slices that its frames refer to, shape (slice, row, column)."""
    result = highdicom.seg.segread(path)
    if segment not in result.segment_numbers:
        raise ValueError(f"{path.name}: no segment {segment}")
    options = {"segment_numbers": [segment], "assert_missing_frames_are_empty": True}
    if len(series.instances) == 1:
        frames = [plane.frame + 1 for plane in series.planes]
        pixels = result.get_pixels_by_source_frame(series.first.SOPInstanceUID, frames, **options)
    else:
        pixels = result.get_pixels_by_source_instance([str(one.SOPInstanceUID) for one in series.instances], **options)
    return np.asarray(pixels[..., 0] > 0)


def synthetic_cases(folder: Path, seeds: Sequence[int] = TEST_SEEDS) -> Iterator[Case]:
    """Unseen deformations of the anatomies of a folder of training data."""
    yield from deform(read_anatomies(folder / "anatomies"), seeds)


def deform(anatomies: list[Anatomy], seeds: Sequence[int], shape: tuple[int, int, int] = _SHAPE) -> Iterator[Case]:
    """Synthetic CT of the seeds around the pancreas; the anatomies take turns."""
    for seed in seeds:
        sample = synthesise(anatomies[seed % len(anatomies)], shape, seed, elsewhere=0)
        hounsfield = sample.hounsfield.round().clamp(-1024, 3000).to(torch.int16).numpy()
        grid = upright_grid(shape, (COARSE_MM, COARSE_MM, COARSE_MM))
        # Each deformation for itself: that they share their anatomies is said in the protocol.
        yield Case(f"synthetic-{seed}", str(seed), Volume(hounsfield, grid), (sample.labels == _TARGET).numpy())


def slice_cases(items: Sequence[Slice], planes: int, plane_mm: float, pixel_mm: float = PIXEL_MM) -> Iterator[Case]:
    """Real slices, each repeated to a thin volume and judged in its middle plane."""
    for at, item in enumerate(items):
        hounsfield = item.hounsfield.round().clamp(-1024, 3000).to(torch.int16).numpy()
        grid = upright_grid((planes, *hounsfield.shape), (plane_mm, pixel_mm, pixel_mm))
        volume = Volume(np.repeat(hounsfield[None], planes, axis=0), grid)
        truth = np.repeat((item.mask > 0.5).numpy()[None], planes, axis=0)
        yield Case(f"{item.patient}-{at:03d}", item.patient, volume, truth, planes // 2)


def held_out_slices(folder: Path) -> list[Slice]:
    """The slices of a folder of training data at their own pixel size."""
    return read_slices(folder / "nih-slices", PIXEL_MM)


def upright_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """A grid towards Superior, Posterior and Left that begins at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = _SPL * np.array(spacing_mm)
    return Grid(VolumeGeometry(affine, shape, coordinate_system="PATIENT"))

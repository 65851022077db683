from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipeline.errors import NotImageData, UnfitGeometry
from pipeline.nifti import read_nifti, write_nifti
from pipeline.series import open_series, read_volume
from pipeline.volume import Segmentation
from tests.phantom import OBLIQUE, PhantomOptions, write_series

AFFINE = np.array([[-0.7, 0, 0, 90], [0, -0.8, 0, 120], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.Nifti1Image(data, affine).to_filename(path)
    return path


def test_voxels_keep_their_place(tmp_path: Path) -> None:
    data = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    volume = read_nifti(save(tmp_path / "ct.nii.gz", data))
    assert volume.hounsfield.shape == (7, 6, 5)
    assert volume.hounsfield[4, 3, 2] == data[2, 3, 4]
    place_ras = (AFFINE @ [2, 3, 4, 1])[:3]
    place_lps = volume.grid.to_reference(np.array([[4, 3, 2]]))[0]
    np.testing.assert_allclose(place_lps, place_ras * [-1, -1, 1], atol=1e-4)
    assert volume.grid.voxel_volume_mm3 == pytest.approx(0.7 * 0.8 * 2.5, rel=1e-5)


def test_scaled_floats_and_a_fourth_axis_of_one(tmp_path: Path) -> None:
    volume = read_nifti(save(tmp_path / "ct.nii", np.full((5, 6, 7, 1), -12.5, np.float64)))
    assert volume.hounsfield.shape == (7, 6, 5)
    assert volume.hounsfield.dtype == np.float32
    assert volume.hounsfield.min() == -12.5


def test_written_masks_lie_on_the_series_they_came_from(tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path, PhantomOptions(shape=(12, 20, 30), orientation=OBLIQUE)))
    mask = read_volume(series).hounsfield > 90
    write_nifti(Segmentation(mask, series.grid, 1.0), tmp_path / "mask.nii.gz")
    read = read_nifti(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read.hounsfield, mask)
    np.testing.assert_allclose(read.grid.geometry.affine, series.grid.geometry.affine, atol=1e-3)
    image = nibabel.load(tmp_path / "mask.nii.gz")
    assert image.get_data_dtype() == np.uint8
    slices, rows, columns = np.argwhere(mask).mean(axis=0)
    lps = series.grid.to_reference(np.array([[slices, rows, columns]]))[0]
    i, j, k = np.argwhere(np.asarray(image.dataobj)).mean(axis=0)
    np.testing.assert_allclose((image.affine @ [i, j, k, 1])[:3], lps * [-1, -1, 1], atol=1e-2)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7, 2), (5, 6, 7, 1, 3)])
def test_not_one_volume(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(NotImageData, match=r"ct\.nii"):
        read_nifti(save(tmp_path / "ct.nii", np.zeros(shape, np.int16)))


def test_not_a_nifti_file(tmp_path: Path) -> None:
    (tmp_path / "ct.nii").write_text("no")
    with pytest.raises(NotImageData, match=r"ct\.nii"):
        read_nifti(tmp_path / "ct.nii")


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_truncated(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, np.random.default_rng(0).integers(0, 999, (40, 40, 40), np.int16))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(NotImageData, match=name):
        read_nifti(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(NotImageData, match=r"gone\.nii"):
        read_nifti(tmp_path / "gone.nii")


def test_voxels_that_are_not_finite(tmp_path: Path) -> None:
    volume = read_nifti(save(tmp_path / "ct.nii", np.full((5, 6, 7), np.nan, np.float32)))
    assert (volume.hounsfield == 0).all()


def test_sheared_axes(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[0, 2] = 1.0
    with pytest.raises(UnfitGeometry, match="right angles"):
        read_nifti(save(tmp_path / "ct.nii", np.zeros((5, 6, 7), np.int16), sheared))

"""nnU-Net's way to the network and back: where the windows lie, how they blend, how coarse planes are resampled."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from highdicom import VolumeGeometry

from models.bundle import Model
from pipeline.infer import InferenceOptions, predict
from pipeline.preprocess import model_grid, to_tensor
from pipeline.volume import Grid, Volume
from pipeline.windows import count_windows, stitch
from tests.fakes import CARD

NNUNET = replace(CARD, convention="nnunet", overlap=0.5, patch=(8, 16, 16), scaled_to=(-2.0, 3.0))
CPU = ("cpu", "cpu")


def thick_slices(spacing: tuple[float, float, float] = (5.0, 1.0, 1.0)) -> Volume:
    z, y, x = np.indices((9, 30, 26))
    hounsfield = (20 * z + 90 * np.sin(y / 4) + 60 * np.cos(x / 5)).astype(np.int16)
    geometry = VolumeGeometry.from_components(
        (9, 30, 26), spacing=spacing, position=(0, 0, 0), direction=np.eye(3)[::-1], coordinate_system="PATIENT"
    )
    return Volume(hounsfield, Grid(geometry))


def test_windows_are_spread_evenly() -> None:
    starts: list[tuple[float, ...]] = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        starts.extend(tuple(window[0, 0, 0].tolist()[:1]) for window in windows)
        return windows

    card = replace(NNUNET, patch=(1, 1, 64))
    tensor = torch.arange(110.0).reshape(1, 1, 1, 1, 110)
    stitch(tensor, network, card, 1, CPU)
    assert starts == [(0.0,), (23.0,), (46.0,)]  # MONAI's would begin at 0, 32 and 46
    assert count_windows((1, 1, 110), card) == 3


@pytest.mark.parametrize("shape", [(5, 40, 33), (8, 16, 16), (20, 9, 50)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_blended_windows_give_back_what_the_network_passes_on(shape: tuple[int, int, int], batch_size: int) -> None:
    tensor = torch.rand(1, 1, *shape)
    logits = stitch(tensor, lambda windows: torch.cat((windows, -windows), 1), NNUNET, batch_size, CPU)
    assert torch.allclose(logits, torch.cat((tensor, -tensor), 1)[0], atol=1e-6)


def test_the_middle_of_a_window_counts_most() -> None:
    """Two windows of 16 over 24 voxels, which say 0 and 1: at voxel 8 the weights are of 0 and 8 voxels off centre."""
    said = iter((0.0, 1.0))
    card = replace(NNUNET, patch=(1, 1, 16))
    logits = stitch(torch.zeros(1, 1, 1, 1, 24), lambda windows: torch.full_like(windows, next(said)), card, 1, CPU)
    edge = np.exp(-0.5 * (8 / 2) ** 2)
    assert logits[0, 0, 0, 8].item() == pytest.approx(edge / (1 + edge), rel=1e-4)
    assert logits[0, 0, 0, 12].item() == pytest.approx(0.5)


def test_progress_counts_these_windows() -> None:
    shares: list[float] = []
    model = Model(NNUNET, lambda windows: torch.cat((windows, windows), 1))
    predict(torch.zeros(1, 1, 20, 40, 16), model, InferenceOptions(progress=shares.append))
    assert shares[-1] == 1.0
    assert len(shares) == count_windows((20, 40, 16), NNUNET) == 16


def test_the_grid_reaches_from_face_to_face() -> None:
    source = thick_slices().grid
    grid = model_grid(source, replace(NNUNET, spacing_mm=(4.0, 1.3, 1.3)))
    assert grid.shape == (11, 23, 20)
    assert np.multiply(grid.shape, grid.geometry.spacing) == pytest.approx([45, 30, 26])


def test_between_thick_slices_the_nearest_is_taken() -> None:
    tensor = to_tensor(thick_slices(), replace(NNUNET, spacing_mm=(2.5, 1.0, 1.0)))[0, 0]
    assert tensor.shape[0] == 18
    assert torch.equal(tensor[0::2], tensor[1::2])
    finer = to_tensor(thick_slices((2.5, 1.0, 1.0)), replace(NNUNET, spacing_mm=(1.25, 1.0, 1.0)))[0, 0]
    assert not torch.allclose(finer[0::2], finer[1::2], atol=1e-3)


def test_voxels_that_stay_in_place_keep_their_values() -> None:
    volume = thick_slices()
    tensor = to_tensor(volume, replace(NNUNET, spacing_mm=(5.0, 1.0, 1.0)))[0, 0].numpy()
    low, high = NNUNET.window_hu
    expected = (np.clip(volume.hounsfield, low, high) - low) / (high - low) * 5 - 2
    assert tensor == pytest.approx(expected, abs=1e-4)


def test_the_planes_are_the_same_from_the_other_end() -> None:
    volume, card = thick_slices(), replace(NNUNET, spacing_mm=(2.7, 0.8, 1.1))
    there = to_tensor(volume, card)
    back = to_tensor(volume, replace(card, orientation="IAR")).flip(2, 3, 4)
    assert torch.allclose(there, back, atol=1e-4)

"""Slice thickness, kernel and noise, on bodies of a plate and an edge."""

from dataclasses import replace

import pytest
import torch

from training.fields import along_axes, linear, random_field
from training.scanner import Scanner, scan

PLAIN = Scanner(thickness_mm=1.0, increment_mm=1.0, blur_mm=0.5, sharpening=0.0, noise=0.0, peak=0.25, streaks=0.0)
STEPS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
SHAPE = (21, 24, 24)


def scanned(body: torch.Tensor, scanner: Scanner, steps: torch.Tensor = STEPS) -> torch.Tensor:
    shape = tuple(round(n * float(fine) / float(wide)) for n, fine, wide in zip(body.shape, *steps, strict=True))
    return scan(body, steps, (shape[0], shape[1], shape[2]), scanner, torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def plate() -> torch.Tensor:
    body = torch.zeros(SHAPE)
    body[10] = 100
    return body


@pytest.mark.parametrize(("thickness_mm", "peak"), [(1.0, 100), (5.0, 20)])
def test_thick_slices_spread_a_plate_over_their_thickness(
    plate: torch.Tensor, thickness_mm: float, peak: float
) -> None:
    profile = scanned(plate, replace(PLAIN, thickness_mm=thickness_mm))[:, 12, 12]
    assert float(profile.max()) == pytest.approx(peak, rel=0.05)
    assert float(profile.sum()) == pytest.approx(100, rel=0.05)


def test_between_thick_slices_is_interpolated(plate: torch.Tensor) -> None:
    profile = scanned(plate, replace(PLAIN, thickness_mm=5.0, increment_mm=5.0))[:, 12, 12]
    assert profile[10:16].tolist() == pytest.approx([20, 16, 12, 8, 4, 0], abs=0.1)


def test_wide_voxels_hold_the_mean_of_narrow_ones() -> None:
    body = torch.zeros(12, 24, 24)
    body[:, :, 12:] = 100
    wide = scanned(body, PLAIN, torch.tensor([[1.5, 1.5, 1.5], [3.0, 3.0, 3.0]]))
    assert wide.shape == (6, 12, 12)
    assert float(wide.mean()) == pytest.approx(50, abs=0.5)
    assert float(wide[3, 6, 2]) == pytest.approx(0, abs=0.5)


def test_sharp_kernels_exceed_at_edges_and_soft_ones_do_not() -> None:
    body = torch.zeros(SHAPE)
    body[:, :, 12:] = 100
    assert float(scanned(body, PLAIN).max()) <= 100.1
    assert float(scanned(body, replace(PLAIN, sharpening=0.5)).max()) > 102


def test_noise_has_its_strength_and_is_no_low_frequency() -> None:
    noise = scanned(torch.zeros(8, 64, 64), replace(PLAIN, noise=20.0, peak=0.2))
    assert float(noise.std()) == pytest.approx(20, rel=0.15)
    assert float(noise.mean((1, 2)).abs().max()) < 0.5  # white noise of 20 HU would reach 0.6 in eight slices


def test_streaks_run_from_left_to_right() -> None:
    noise = scanned(torch.zeros(8, 64, 64), replace(PLAIN, streaks=10.0))
    assert float(noise.diff(dim=2).abs().mean()) < 0.2 * float(noise.diff(dim=1).abs().mean())


def test_fields_have_unit_variance_and_change_over_their_cell() -> None:
    field = random_field((48, 48, 48), (6.0, 6.0, 6.0), torch.Generator().manual_seed(0))[0]
    assert float(field.std()) == pytest.approx(1, rel=0.15)
    assert float(field.diff(dim=0).std()) < 0.35


def test_linear_interpolation_keeps_the_ends() -> None:
    line = along_axes(torch.tensor([1.0, 5.0]).view(2, 1, 1), [linear(5, 2), torch.ones(1, 1), torch.ones(1, 1)])
    assert line.flatten().tolist() == [1, 2, 3, 4, 5]

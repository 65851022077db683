"""What is changed is what is said to be changed, and the coefficient is the one worked out by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from models.bundle import read_bundle, record_repeatability, write_bundle
from models.networks import build
from pipeline.volume import Volume
from tests.fakes import CARD, threshold_model
from tests.phantom import PANCREAS, PhantomOptions, centres, scan
from training.grids import upright_grid
from training.repeatability import (
    CHANGES,
    Measured,
    add_noise,
    describe,
    filter_kernel,
    main,
    measure_changes,
    move,
    repeatability,
    thicken,
)

OPTIONS = PhantomOptions(shape=(30, 40, 50), spacing_mm=(4.0, 4.0, 4.0))
GRID = upright_grid(OPTIONS.shape, OPTIONS.spacing_mm)
VOLUME = Volume(scan(OPTIONS).round().astype(np.int16), GRID)


def centroid(volume: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return volume.grid.to_reference(np.argwhere(volume.hounsfield > 120)).mean(axis=0)


def test_a_shift_moves_the_organ_by_as_many_voxels_the_other_way() -> None:
    moved = move(VOLUME, (0.5, -1.0, 0.25), (0, 0, 0))
    # The grid of `upright_grid`: slices to Superior, rows to Posterior, columns to Left.
    assert centroid(moved) - centroid(VOLUME) == pytest.approx([-1.0, 4.0, -2.0], abs=0.5)
    assert moved.grid.equals(VOLUME.grid)


def test_a_turn_keeps_the_organ_as_far_from_the_middle_and_turns_it() -> None:
    moved = move(VOLUME, (0, 0, 0), (0, 0, 10))
    middle = GRID.to_reference((np.array([GRID.shape]) - 1) / 2)[0]
    before, after = (centroid(volume)[:2] - middle[:2] for volume in (VOLUME, moved))
    angle = math.degrees(math.atan2(*before[::-1]) - math.atan2(*after[::-1]))
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=0.5)
    assert abs(angle) == pytest.approx(10, abs=1)


def test_slices_twice_as_thick_are_means_that_lie_between_their_two() -> None:
    thick = thicken(VOLUME, 1)
    assert thick.grid.shape == (14, 40, 50)
    assert thick.grid.geometry.spacing == pytest.approx((8.0, 4.0, 4.0))
    two = VOLUME.hounsfield[[7, 8]]
    assert np.abs(thick.hounsfield[3] - two.mean(axis=0)).max() <= 0.5
    between = GRID.to_reference(np.array([[7.5, 0, 0]]))[0]
    assert thick.grid.to_reference(np.array([[3, 0, 0]]))[0] == pytest.approx(between)
    assert centroid(thick) == pytest.approx(centroid(VOLUME), abs=1.0)


def test_noise_is_of_the_stated_strength_and_the_same_each_time() -> None:
    inside = PANCREAS.contains(centres(OPTIONS))
    flat = Volume(np.where(inside, 100, 0).astype(np.int16), GRID)
    noisy = add_noise(flat, 10, 1)
    assert np.array_equal(noisy.hounsfield, add_noise(flat, 10, 1).hounsfield)
    assert (noisy.hounsfield - flat.hounsfield)[~inside].std() == pytest.approx(10, rel=0.05)


def test_a_soft_kernel_takes_detail_away_and_a_sharp_one_adds_it_in_the_plane_alone() -> None:
    fine = upright_grid((3, 20, 20), (1.0, 1.0, 1.0))
    noise = np.random.default_rng(0).normal(0, 50, (3, 20, 20))
    noise[1] = 0
    volume = Volume(noise.astype(np.int16), fine)
    soft, sharp = filter_kernel(volume, -1), filter_kernel(volume, 1)
    assert soft.hounsfield[0].std() < 0.7 * volume.hounsfield[0].std() < sharp.hounsfield[0].std()
    assert not soft.hounsfield[1].any()


def test_the_coefficient_of_two_series_is_that_worked_out_by_hand() -> None:
    volumes = {1: [9.0, 10.0, 11.0], 2: [18.0, 20.0, 22.0]}
    measured = [Measured(series, "original", "", ml) for series, row in volumes.items() for ml in row]
    figures = repeatability([*measured, Measured(3, "original", "", 0.0), Measured(3, "shift", "", 0.0)])
    assert (figures.series, figures.analyses, figures.not_found) == (2, 6, 2)
    assert figures.within_subject_sd_percent == pytest.approx(10)
    assert figures.repeatability_coefficient_percent == pytest.approx(27.7)
    assert figures.within_subject_sd_ml == pytest.approx(math.sqrt((1 + 4) / 2))


def test_a_threshold_repeats_well_and_a_change_that_loses_the_organ_counts() -> None:
    # 30 slices, of which half would be 15: too few for this model.
    model = threshold_model(minimum_slices=20, spacing_mm=(3.0, 3.0, 3.0), patch=(32, 48, 48))
    measured = list(measure_changes(VOLUME, model, 1))
    assert {row.kind for row in measured} == {"original", "shift", "rotation", "noise", "kernel"}
    content = describe(measured, model)
    assert content["all"]["repeatability_coefficient_percent"] < 10
    assert set(content["by_kind"]) == {"shift", "rotation", "noise", "kernel"}
    lost = repeatability([*measured, Measured(1, "slices", "", 0.0)])
    assert lost.repeatability_coefficient_percent > 50


def test_the_command_writes_what_a_model_card_can_hold(tmp_path: Path) -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [2, 2], "strides": [2]}
    card = replace(CARD, network="UNet", network_arguments=arguments, patch=(32, 64, 64), spacing_mm=(4.0, 4.0, 4.0))
    write_bundle(tmp_path / "bundle", card, build("UNet", arguments), "")
    image = sitk.GetImageFromArray(VOLUME.hounsfield)
    image.SetSpacing((4.0, 4.0, 4.0))
    sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    out = tmp_path / "repeatability.json"
    main(["--bundle", str(tmp_path / "bundle"), "--out", str(out), "--device", "cpu", str(tmp_path / "ct.nii.gz")])
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["model"]["name"] == card.name
    assert len(content["measured"]) == 1 + len(CHANGES)


def test_a_coefficient_is_put_into_the_card_and_the_weights_stay(tmp_path: Path) -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [2, 2], "strides": [2]}
    card = write_bundle(
        tmp_path, replace(CARD, network="UNet", network_arguments=arguments), build("UNet", arguments), "# of it\n"
    )
    assert card.repeatability_percent is None
    assert record_repeatability(tmp_path, 12.5) == replace(card, repeatability_percent=12.5)
    assert read_bundle(tmp_path).card.repeatability_percent == 12.5

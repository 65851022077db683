"""What MONAI's own tools make of the bundles that are written: `python -m monai.bundle run` labels as the node does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import monai.bundle
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import nn

from models.bundle import INFERENCE, METADATA, TRAINING, WEIGHTS, default_bundle, read_bundle, write_bundle
from models.networks import build
from pipeline.analyse import Options, segment
from pipeline.nifti import read_nifti
from pipeline.postprocess import largest_component
from pipeline.series import open_series, read_volume
from pipeline.volume import Volume
from tests.monai_bundles import CARD, draw, volume, write_volume

SAMPLE = Path(__file__).parents[3] / "samples" / "ge-discovery-abdomen"


def run_as_a_command(bundle: Path, config: str, **overrides: object) -> None:
    options = [part for name, value in overrides.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", f"configs/{config}.json"]
    done = subprocess.run(
        [*command, "--bundle_root", ".", *options], cwd=bundle, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def run_here(bundle: Path, config: str, **overrides: object) -> None:
    """The same without another start of Python and PyTorch."""
    monai.bundle.run(config_file=str(bundle / "configs" / f"{config}.json"), bundle_root=str(bundle), **overrides)


def masks(bundle: Path, run: Callable[..., None]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of the bundle's input: the node's mask, and the largest piece of what MONAI labels as the target."""
    model, given = read_bundle(bundle), read_nifti(bundle / "input" / "ct.nii.gz")
    segmentation, _ = segment(given, model, Options(at=datetime(2026, 1, 1, tzinfo=UTC)))
    run(bundle, "inference")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(bundle / "output" / "ct" / "ct_seg.nii.gz")))
    return segmentation.mask, largest_component(labels == model.card.target)[0]


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


CASES = {
    "three axes": (CARD, 12),
    "two axes": (replace(CARD, patch=(1, 32, 40), network_arguments={**CARD.network_arguments, "spatial_dims": 2}), 28),
    "spacingd": (replace(CARD, convention="spacingd", orientation="RAS", scaled_to=(-1.0, 1.0)), 5),
    "range": (replace(CARD, convention="spacingd", window_hu=None, scaled_to=(-1.0, 1.0), blending="constant"), 1),
}
"""With seeds of weights that find something, but not everything."""


def made_up(folder: Path, case: str) -> Path:
    card, seed = CASES[case]
    network = build(card.network, card.network_arguments)
    draw(network, seed)
    write_bundle(folder, card, network, "# made up\n")
    write_volume(volume(), folder / "input" / "ct.nii.gz")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_monai_labels_as_the_node_does(tmp_path: Path, case: str) -> None:
    bundle = made_up(tmp_path / "bundle", case)
    ours, theirs = masks(bundle, run_here)
    assert 0.05 < np.mean(theirs) < 0.5
    assert dice(ours, theirs) >= (1 if case in ("spacingd", "range") else 0.998)


def test_monai_averages_members_as_the_node_does(tmp_path: Path) -> None:
    card, seed = CASES["two axes"]
    networks = [build(card.network, card.network_arguments) for _ in range(3)]
    for number, network in enumerate(networks):
        draw(network, seed + number)
    write_bundle(tmp_path, card, networks, "# made up\n", half=True)
    write_volume(volume(), tmp_path / "input" / "ct.nii.gz")
    ours, theirs = masks(tmp_path, run_here)
    assert np.count_nonzero(theirs) > 100
    assert dice(ours, theirs) >= 0.998


def test_monai_labels_the_sample_with_the_shipped_bundle_as_the_node_does(tmp_path: Path) -> None:
    bundle = shutil.copytree(default_bundle(), tmp_path / "bundle")
    sample = read_volume(open_series(sorted(SAMPLE.glob("*.dcm"))))
    box = (slice(10, 38), slice(150, 340), slice(150, 360))
    write_volume(Volume(sample.hounsfield[box], sample.grid[box]), bundle / "input" / "ct.nii.gz")
    ours, theirs = masks(bundle, run_as_a_command)
    assert np.count_nonzero(theirs) > 1000
    assert dice(ours, theirs) >= 0.99


@pytest.mark.parametrize("case", ["three axes", "two axes"])
def test_monai_trains_the_weights_on(tmp_path: Path, case: str) -> None:
    bundle = made_up(tmp_path / "bundle", case)
    given = volume()
    labels = np.digitize(given.hounsfield, (40, 120)).astype(np.int16)
    for number in range(2):
        write_volume(given, bundle / "data" / "imagesTr" / f"{number}.nii.gz")
        write_volume(Volume(labels, given.grid), bundle / "data" / "labelsTr" / f"{number}.nii.gz")
    (run_as_a_command if case == "three axes" else run_here)(bundle, "train", epochs=1)
    trained = torch.load(bundle / "output" / "model.pt", weights_only=True)
    before = torch.load(bundle / WEIGHTS, weights_only=True)
    assert trained.keys() == before.keys()
    assert any(not torch.equal(trained[name], before[name]) for name in before)


@pytest.mark.parametrize("case", CASES)
def test_monai_finds_the_network_to_be_what_the_metadata_say(tmp_path: Path, case: str) -> None:
    bundle = made_up(tmp_path / "bundle", case)
    monai.bundle.verify_net_in_out("network_def", meta_file=str(bundle / METADATA), config_file=str(bundle / INFERENCE))


@pytest.mark.parametrize("bundle", sorted(default_bundle().parent.iterdir()), ids=lambda bundle: bundle.name)
def test_the_shipped_configurations_are_those_that_are_written(bundle: Path, tmp_path: Path) -> None:
    model = read_bundle(bundle)
    write_bundle(tmp_path, model.card, cast(nn.Module, model.network), "")
    for part in (INFERENCE, TRAINING):
        assert (bundle / part).read_text() == (tmp_path / part).read_text()

"""What a stranger runs first: the demo, from C-STORE to C-STORE, here with a small network of random weights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydicom import dcmread

from models.bundle import write_bundle
from models.networks import build
from tests.fakes import CARD

ROOT = Path(__file__).parents[2]
NETWORK = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    card = replace(CARD, spacing_mm=(4.25, 4.0, 4.0), patch=(16, 64, 64), network="UNet", network_arguments=NETWORK)
    write_bundle(folder, card, build("UNet", NETWORK), "Random weights, for tests only.\n")
    return folder


def run_demo(output: Path, model: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEMO_OUTPUT": str(output), "DICOMNODE_WORKER__MODEL": str(model)}
    environment["DICOMNODE_WORKER__DEVICE"] = "cpu"
    command = [sys.executable, str(ROOT / "deploy" / "demo.py")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


@pytest.mark.slow
def test_the_demo_prints_the_volume_and_the_paths(tmp_path: Path, bundle: Path) -> None:
    done = run_demo(tmp_path / "demo", bundle)
    assert done.returncode == 0, done.stderr
    stated = re.search(r"as the SR states it: ([\d.]+) mL", done.stdout)
    assert stated
    seg, sr, overlay = (tmp_path / "demo" / name for name in ("seg.dcm", "sr.dcm", "overlay.png"))
    assert all(str(path) in done.stdout for path in (seg, sr, overlay))
    mask = dcmread(seg)
    measures = mask.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    voxel_mm3 = float(measures.PixelSpacing[0]) * float(measures.PixelSpacing[1]) * float(measures.SliceThickness)
    assert float(stated[1]) == pytest.approx(mask.pixel_array.sum() * voxel_mm3 / 1000, rel=1e-4)
    assert dcmread(sr).SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert overlay.read_bytes().startswith(b"\x89PNG")


def test_a_demo_without_a_model_says_why(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "demo", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr

"""Seconds and peak memory beside nnU-Net's own predictor: the same folder, the same volume, a process for each.

    python -m benchmarks.nnunet_predictor            (nnunetv2 must be installed, otherwise ours alone)

A network of nnU-Net's shape but narrower, 25 labels as TotalSegmentator's, random weights, mirroring off, on the CPU.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from highdicom import VolumeGeometry

from models.nnunet import Choice, read_nnunet
from pipeline.analyse import Options, segment
from pipeline.volume import Grid, Volume
from tests.nnunet_folders import write_checkpoint, write_folder

SHAPE, SPACING_MM = (100, 320, 320), (2.5, 1.0, 1.0)
MODEL_SPACING_MM, PATCH, LABELS = [2.0, 1.5, 1.5], [48, 96, 96], 25
TARGET = 23  # the random network finds it in a fiftieth of the volume
STAGES: dict[str, Any] = {
    "n_stages": 4,
    "features_per_stage": [8, 16, 32, 64],
    "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2, 2],
}


def volume() -> Volume:
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    hounsfield = 60 + 120 * np.sin(z / 9) * np.cos(y / 31) + 90 * np.sin((x + y) / 23)
    hounsfield[np.broadcast_to((y / 160 - 1) ** 2 + (x / 160 - 1) ** 2 > 0.8, SHAPE)] = -1000
    geometry = VolumeGeometry.from_components(
        SHAPE, spacing=SPACING_MM, position=(0, 0, 0), direction=np.eye(3)[::-1], coordinate_system="PATIENT"
    )
    return Volume(hounsfield.astype(np.int16), Grid(geometry))


def write(folder: Path) -> None:
    def edit(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
        configuration = plans["configurations"]["3d_fullres"]
        configuration |= {"patch_size": PATCH, "spacing": MODEL_SPACING_MM}
        configuration["architecture"]["arch_kwargs"] |= STAGES
        dataset["labels"] = {"background": 0} | {f"organ {label}": label for label in range(1, LABELS)}

    write_folder(folder, edit=edit)
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", "PlainConvUNet", seed=1, stages=STAGES, labels=LABELS)


def ours(folder: Path) -> int:
    segmentation, _ = segment(
        volume(), read_nnunet(folder, Choice(target=f"organ {TARGET}")), Options(at=datetime.now(UTC))
    )
    return int(np.count_nonzero(segmentation.mask))


def theirs(folder: Path) -> int:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=None)
    image = volume().hounsfield.astype(np.float32)[None]
    return int(np.count_nonzero(predictor.predict_single_npy_array(image, {"spacing": list(SPACING_MM)}) == TARGET))


def measure(way: str, folder: Path) -> None:
    started = time.perf_counter()
    voxels = {"ours": ours, "theirs": theirs}[way](folder)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds, peak_mb = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(
        json.dumps(
            {
                "way": way,
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu_seconds, 1),
                "peak_mb": round(peak_mb),
                "voxels": voxels,
            }
        )
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch) / "model")
        for way in ("ours", "theirs") if find_spec("nnunetv2") else ("ours",):
            command = [sys.executable, "-m", "benchmarks.nnunet_predictor", way, str(Path(scratch) / "model")]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1], flush=True
            )


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2])) if len(sys.argv) > 1 else main()

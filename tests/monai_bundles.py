"""Made-up models and a volume for comparisons with MONAI's own tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from highdicom import VolumeGeometry
from torch import nn

from models.card import Card
from pipeline.volume import Grid, Volume

SHAPE = (37, 60, 51)
CARD = Card(
    name="made-up",
    version="1.0.0",
    sha256="",
    orientation="SPL",
    spacing_mm=(3.1, 2.3, 2.0),
    window_hu=(-160.0, 240.0),
    patch=(16, 32, 24),
    overlap=0.5,
    labels={0: "background", 1: "pancreas", 2: "liver"},
    target=1,
    statement="A test.",
    network="UNet",
    network_arguments={
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [4, 8],
        "strides": [2],
        "norm": "BATCH",
    },
)


def volume() -> Volume:
    """Smooth shapes in a round body."""
    z, y, x = np.indices(SHAPE, dtype=np.float64)
    waves = np.sin(z / 8) * np.cos(y / 11) + np.sin((x + y) / 14) * np.cos((z - x) / 12)
    hounsfield = np.round(40 + 120 * waves + 2 * np.random.RandomState(7).standard_normal(SHAPE)).astype(np.int16)
    hounsfield[(z / 18 - 1) ** 2 + (y / 30 - 1) ** 2 + (x / 25 - 1) ** 2 > 0.9] = -1000
    hounsfield[hounsfield == 0] = 1  # of 0 HU, interpolation's last bit decides what NormalizeIntensityd(nonzero) does
    geometry = VolumeGeometry.from_components(
        SHAPE,
        spacing=(2.5, 1.6, 1.4),
        position=(-40.0, -48.0, 12.0),
        direction=np.eye(3)[::-1].T,
        coordinate_system="PATIENT",
    )
    return Volume(hounsfield, Grid(geometry))


def write_volume(volume: Volume, path: Path) -> None:
    """As a NIfTI file."""
    geometry = volume.grid.geometry
    image = sitk.GetImageFromArray(volume.hounsfield)
    image.SetOrigin(geometry.position)
    image.SetSpacing(tuple(reversed(geometry.spacing)))
    image.SetDirection(tuple(float(cosine) for cosine in geometry.direction[:, ::-1].ravel()))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def draw(network: nn.Module, seed: int) -> None:
    """Weights that anyone can make again; kernels smooth, so that labels come in lumps, as a trained network's do."""
    random = np.random.RandomState(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            shape = tuple(parameter.shape)
            if len(shape) < 3:
                if name.endswith("bias"):
                    parameter.copy_(torch.from_numpy(0.1 * random.standard_normal(shape)))
                continue
            window = np.ones(())
            for size in shape[2:]:
                window = np.multiply.outer(window, np.hanning(size + 2)[1:-1] if size > 2 else np.ones(size))
            values = random.standard_normal((*shape[:2], *(1,) * len(shape[2:]))) * window
            parameter.copy_(torch.from_numpy(values / np.sqrt(shape[1])))

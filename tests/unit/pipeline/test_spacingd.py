"""By the convention "spacingd" the network sees what MONAI's transforms would show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from highdicom import VolumeGeometry
from monai.data import MetaTensor
from monai.transforms import Compose, NormalizeIntensity, Orientation, ScaleIntensity, ScaleIntensityRange, Spacing

from models.card import Card
from pipeline.preprocess import model_grid, to_tensor
from pipeline.volume import Grid, Volume
from tests.fakes import CARD
from tests.phantom import AXIAL, CORONAL, PRONE

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
WINDOWED = replace(CARD, convention="spacingd", orientation="RAS", spacing_mm=(1.5, 1.5, 2.0), window_hu=(-175, 250))
RANGED = replace(WINDOWED, window_hu=None, scaled_to=(-1.0, 1.0))
SCALINGS: dict[str, tuple[Card, list[Any]]] = {
    "window": (WINDOWED, [ScaleIntensityRange(-175, 250, 0.0, 1.0, clip=True)]),
    "range": (RANGED, [NormalizeIntensity(nonzero=True), ScaleIntensity(-1.0, 1.0)]),
}


def volume(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], towards: tuple[float, ...]) -> Volume:
    geometry = VolumeGeometry.from_attributes(
        image_position=(-12.0, 33.0, 41.0),
        image_orientation=towards,
        rows=shape[1],
        columns=shape[2],
        pixel_spacing=spacing_mm[1:],
        spacing_between_slices=spacing_mm[0],
        number_of_frames=shape[0],
        coordinate_system="PATIENT",
    )
    hounsfield = np.random.default_rng(5).integers(-300, 400, shape).astype(np.int16)
    hounsfield[2:4] = 0
    return Volume(hounsfield, Grid(geometry))


def by_monai(volume: Volume, card: Card, scaling: list[Any]) -> MetaTensor:
    image = MetaTensor(
        torch.from_numpy(volume.hounsfield.astype(np.float32))[None], affine=TO_RAS @ volume.grid.geometry.affine
    )
    steps = [Orientation(card.orientation, labels=None), Spacing(card.spacing_mm, mode="bilinear"), *scaling]
    return Compose(steps)(image)  # type: ignore[no-any-return]


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(
    ("shape", "spacing_mm", "towards"),
    [
        ((20, 33, 41), (5.0, 0.8, 0.7), AXIAL),
        ((21, 30, 26), (1.25, 1.9, 2.3), PRONE),
        ((14, 25, 27), (3.1, 2.0, 2.0), CORONAL),
        ((12, 20, 20), (2.0, 1.5, 1.5), AXIAL),
    ],
)
def test_the_network_sees_what_monai_shows_it(
    scaling: str, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], towards: tuple[float, ...]
) -> None:
    card, transforms = SCALINGS[scaling]
    given = volume(shape, spacing_mm, towards)
    expected = by_monai(given, card, transforms)
    tensor = to_tensor(given, card)
    np.testing.assert_allclose(TO_RAS @ model_grid(given.grid, card).geometry.affine, expected.affine, atol=1e-6)
    assert tensor[0].shape == expected.shape
    alike = np.isclose(tensor[0], expected.as_tensor(), atol=2e-4)
    assert alike.mean() > 0.999  # where interpolation gives 0 HU, the last bit decides whether it is exactly 0
    assert alike.all() or scaling == "range"

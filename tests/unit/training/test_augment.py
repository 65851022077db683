"""Augmentation keeps image and labels together and is the same for the same seed."""

import pytest
import torch

from training.augment import INTENSITY, SPATIAL, Augmentation
from training.recipe import Named

SHARP = {
    "RandFlipd": {"prob": 1.0, "spatial_axis": 0},
    "RandRotate90d": {"prob": 1.0, "spatial_axes": (0, 1)},
    "RandAffined": {"prob": 1.0, "rotate_range": 0.4, "scale_range": 0.2},
    "Rand2DElasticd": {"prob": 1.0, "spacing": (8, 8), "magnitude_range": (1, 2)},
}


def sample(depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(depth, 40, 40, dtype=torch.int64)
    labels[:, 4:14, 6:20] = 1
    return labels.float(), labels


@pytest.mark.parametrize("name", SHARP)
def test_labels_move_with_the_image(name: str) -> None:
    augment = Augmentation([Named(name=name, **SHARP[name])])
    image, labels = augment(*sample(1), seed=3)
    assert image.shape == labels.shape == (1, 40, 40)
    assert labels.dtype == torch.int64
    assert not torch.equal(labels, sample(1)[1])
    assert float(((image > 0.5) != (labels == 1)).float().mean()) < 0.01


def test_volumes_are_deformed_too_and_seeds_decide() -> None:
    affine = Named(name="RandAffined", prob=1.0, rotate_range=(0.3, 0.2, 0.1))
    elastic = Named(name="Rand3DElasticd", prob=1.0, sigma_range=(3, 4), magnitude_range=(20, 30))
    augment = Augmentation([affine, elastic, Named(name="RandGaussianNoised", prob=1.0, std=0.1)])
    first, again, other = (augment(*sample(12), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert set(first[1].unique().tolist()) == {0, 1}


def test_intensity_leaves_labels_alone() -> None:
    augment = Augmentation([Named(name="RandScaleIntensityd", prob=1.0, factors=0.5)])
    image, labels = augment(*sample(1), seed=1)
    assert torch.equal(labels, sample(1)[1])
    assert not torch.equal(image, sample(1)[0])


def test_what_is_not_known_or_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="unknown transform 'LoadImaged'; known are RandFlipd"):
        Augmentation([Named(name="LoadImaged")])
    with pytest.raises(ValueError, match=r"transform RandFlipd: .*angle"):
        Augmentation([Named(name="RandFlipd", angle=3)])
    assert {*SPATIAL} - SHARP.keys() == {"Rand3DElasticd"}
    assert "RandGaussianNoised" in INTENSITY

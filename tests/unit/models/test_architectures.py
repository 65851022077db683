"""Every network by its name: small ones of each are built, run and learnt from, in the dimensions they know."""

import pytest
import torch

from models.lite_unet import inflate
from models.networks import NETWORKS, build

_SIZE = 64
SMALL = {
    "AttentionUnet": {"channels": (4, 8), "strides": (2,)},
    "DilatedUNet": {"channels": (4, 8, 8)},
    "DynUNet": {"kernel_size": (3, 3, 3), "strides": (1, 2, 2), "upsample_kernel_size": (2, 2), "filters": (4, 8, 8)},
    "FlexibleUNet": {"backbone": "efficientnet-lite0", "decoder_channels": (16, 8, 8, 8, 8)},
    "LiteUNet": {"decoder_channels": (16, 8, 8, 8, 8)},
    "SegResNet": {"init_filters": 8},
    "SwinUNETR": {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "UNETR": {"img_size": _SIZE, "feature_size": 4, "hidden_size": 48, "mlp_dim": 48, "num_heads": 4},
    "UNet": {"channels": (4, 8), "strides": (2,)},
    "UNetPlusPlus": {"features": (4, 4, 8, 8, 8, 4)},
}


def test_none_is_left_out() -> None:
    elsewhere = {"Folds", "DiNTS"}  # with the folders and bundles that they come in: test_nnunet.py, test_zoo.py
    assert SMALL.keys() | elsewhere == NETWORKS.keys()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_a_network_maps_windows_to_logits_and_learns(name: str, dims: int) -> None:
    network = build(name, {"spatial_dims": dims, "in_channels": 1, "out_channels": 2, **SMALL[name]})
    depth = 2 if dims == 2 else (_SIZE if name in ("UNETR", "SwinUNETR", "FlexibleUNet") else 32)
    logits = network(torch.randn(1, 1, depth, _SIZE, _SIZE))
    assert logits.shape == (1, 2, depth, _SIZE, _SIZE)
    logits.square().mean().backward()
    gradients = [weights.grad is not None for weights in network.parameters()]
    assert sum(gradients) > 0.8 * len(gradients)


def test_an_inflated_network_does_with_each_slice_what_the_flat_one_did() -> None:
    arguments = {"in_channels": 1, "out_channels": 3, "decoder_channels": (16, 8, 8, 8, 8)}
    flat = build("LiteUNet", {"spatial_dims": 2, **arguments})
    flat(torch.randn(4, 1, 1, 64, 64))  # running statistics that are not those of the beginning
    deep = build("LiteUNet", {"spatial_dims": 3, **arguments})
    inflate(deep, flat.state_dict())
    volume = torch.randn(1, 1, 5, 64, 64)
    assert torch.allclose(flat.eval()(volume), deep.eval()(volume), atol=1e-4)
    before = deep(volume)
    torch.nn.init.normal_(deep.decoder[0][0].conv.weight)
    assert not torch.allclose(deep(volume), before)
    with pytest.raises(ValueError, match="lack or exceed"):
        inflate(deep, {})
    with pytest.raises(ValueError, match=r"head.conv.weight is .*needs"):
        inflate(deep, {**flat.state_dict(), "head.conv.weight": torch.zeros(1, 8, 1, 1)})

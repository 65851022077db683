"""Networks by name; one of two axes takes the place of one of three."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.bundle import read_bundle, write_bundle
from models.networks import NETWORKS, build
from tests.fakes import CARD

FLAT: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}


def plain() -> nn.Module:
    torch.manual_seed(3)
    return NETWORKS["UNet"](**FLAT).eval()


@pytest.mark.parametrize("depth", [1, 5])
def test_a_flat_network_runs_every_slice_of_a_window_on_its_own(depth: int) -> None:
    network, by_slice = plain(), build("UNet", FLAT).eval()
    by_slice.load_state_dict(network.state_dict())
    windows = torch.rand(2, 1, depth, 16, 24)
    with torch.inference_mode():
        logits = by_slice(windows)
        assert logits.shape == (2, 3, depth, 16, 24)
        for number, window in enumerate(windows):
            for plane in range(depth):
                torch.testing.assert_close(logits[number, :, plane], network(window[:, plane][None])[0])


def test_its_weights_have_the_names_of_the_plain_network() -> None:
    by_slice = build("UNet", FLAT)
    assert list(by_slice.state_dict()) == list(plain().state_dict())
    assert isinstance(by_slice, NETWORKS["UNet"])


def test_it_is_copied_and_kept_in_a_bundle_like_any_other(tmp_path: Path) -> None:
    network = copy.deepcopy(build("UNet", FLAT).eval())
    labels = {0: "background", 1: "pancreas", 2: "other"}
    card = replace(CARD, network="UNet", network_arguments=FLAT, patch=(1, 16, 16), labels=labels)
    write_bundle(tmp_path, card, network, "# flat\n")
    windows = torch.rand(1, 1, 4, 16, 16)
    with torch.inference_mode():
        assert torch.equal(read_bundle(tmp_path).network(windows), network(windows))


def test_a_network_of_three_axes_is_as_it_was() -> None:
    arguments = {**FLAT, "spatial_dims": 3}
    assert type(build("UNet", arguments)) is NETWORKS["UNet"]


def test_an_unknown_network_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'Perceptron'.*SegResNet"):
        build("Perceptron", {})

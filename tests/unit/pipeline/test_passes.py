"""Members and mirrored images: the mean of their probabilities, and how far they agree."""

from __future__ import annotations

import gc
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.bundle import Model, Network
from pipeline.errors import Exhausted
from pipeline.infer import InferenceOptions, Prediction, predict
from tests.fakes import CARD, threshold_model

SHAPE = (6, 20, 24)
WHOLE = replace(CARD, patch=SHAPE)
PAIRS = {"L": "LR", "P": "AP", "S": "SI"}


def tensor(shape: tuple[int, int, int] = SHAPE) -> Tensor:
    torch.manual_seed(7)
    return torch.rand(1, 1, *shape)


def biased(bias: float) -> Network:
    """A network of two labels, the brighter the likelier."""
    return lambda windows: torch.cat((torch.zeros_like(windows), 6 * windows - 3 + bias), 1)


def ensemble(*networks: Network, **changes: Any) -> Model:
    first, *others = networks
    return Model(replace(WHOLE, members=len(networks), **changes), first, tuple(others))


def run(model: Model, seen: Tensor, **options: Any) -> Prediction:
    return predict(seen, model, InferenceOptions(**options))


def corner(windows: Tensor) -> Tensor:
    """Finds what is bright in the low half of every axis: mirrored, it finds something else."""
    low = torch.zeros_like(windows)
    low[..., : windows.shape[2] // 2, : windows.shape[3] // 2, : windows.shape[4] // 2] = 1
    return torch.cat((torch.zeros_like(windows), 10 * windows * low - 2), 1)


def test_probabilities_are_averaged_and_not_logits() -> None:
    seen, networks = tensor(), [biased(bias) for bias in (-2.0, 0.0, 5.0)]
    by_hand = sum(torch.softmax(network(seen)[0], 0) for network in networks) / 3
    torch.testing.assert_close(run(ensemble(*networks), seen).probabilities, by_hand)


def test_one_pass_has_no_agreement() -> None:
    assert run(threshold_model(), tensor()).agreement is None


@pytest.mark.parametrize("orientation", ["SPL", "LSA", "IAR"])
@pytest.mark.parametrize("flips", ["L", "LP", "LPS"])
def test_flips_are_along_the_axes_of_the_patient_in_every_combination(flips: str, orientation: str) -> None:
    seen, calls = tensor(), []

    def network(windows: Tensor) -> Tensor:
        calls.append(windows.clone())
        return corner(windows)

    predicted = run(ensemble(network, flips=flips, orientation=orientation), seen)
    axes = [2 + next(at for at, letter in enumerate(orientation) if letter in PAIRS[one]) for one in flips]
    some = [[axis for bit, axis in enumerate(axes) if number >> bit & 1] for number in range(2 ** len(axes))]
    expected = [torch.softmax(corner(seen.flip(flip)).flip(flip)[0], 0) for flip in some]
    torch.testing.assert_close(predicted.probabilities, sum(expected) / len(expected))
    assert sorted(call.flatten()[0].item() for call in calls) == sorted(seen.flip(f).flatten()[0].item() for f in some)


def test_a_network_that_is_as_symmetrical_as_its_image_agrees_with_itself() -> None:
    seen = tensor()
    one, mirrored = run(ensemble(biased(0)), seen), run(ensemble(biased(0), flips="LPS"), seen)
    torch.testing.assert_close(mirrored.probabilities, one.probabilities)
    assert mirrored.agreement is not None
    assert mirrored.agreement.dice == 1
    assert len(mirrored.agreement.voxels) == 8


def test_agreement_is_of_the_largest_piece_that_each_pass_found_and_turned_back() -> None:
    seen = torch.zeros(1, 1, *SHAPE)
    seen[..., 1:3, 2:8, 2:8] = 1  # in the low corner: 72 voxels
    seen[..., 5, 19, 23] = 1  # a crumb far from it
    both = run(ensemble(biased(0), corner), seen).agreement
    assert both is not None
    assert both.voxels == (72, 72)
    assert both.dice == 1
    mirrored = run(ensemble(corner, flips="L"), seen).agreement
    assert mirrored is not None
    assert mirrored.voxels == (72, 0)
    assert mirrored.dice == 0


def test_members_times_flips_are_the_passes_of_the_progress() -> None:
    shares: list[float] = []
    networks = ensemble(biased(0), biased(1), flips="P", patch=(4, 8, 8))
    run(networks, tensor(), progress=shares.append)
    assert shares == sorted(set(shares)), "each batch moves on"
    assert shares[0] < 0.1
    assert shares[-1] == pytest.approx(1)


def test_case_28_a_later_pass_that_runs_out_of_memory_falls_back_too() -> None:
    def greedy(windows: Tensor) -> Tensor:
        if len(windows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return biased(1)(windows)

    small = {"patch": (4, 8, 8), "flips": "L"}
    expected = run(ensemble(biased(0), biased(1), **small), tensor())
    found = run(ensemble(biased(0), greedy, **small), tensor(), batch_size=4)
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    assert found.agreement == expected.agreement


def test_case_28_exhausted_when_one_window_of_a_later_pass_is_too_much() -> None:
    def hopeless(windows: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(Exhausted, match="out of memory on cpu"):
        run(ensemble(biased(0), hopeless), tensor())


def test_memory_does_not_grow_with_the_passes() -> None:
    def large_tensors_with(members: int) -> int:
        """The most tensors as large as all labels of the whole volume that were alive while a network ran."""
        most = 0

        def network(windows: Tensor) -> Tensor:
            nonlocal most
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                alive = {each.data_ptr() for each in gc.get_objects() if type(each) is Tensor and each.numel() >= size}
            most = max(most, len(alive))
            return biased(0)(windows)

        seen = tensor((12, 40, 48))
        size = 2 * seen.numel()
        run(ensemble(*[network] * members, patch=(12, 40, 24)), seen)
        return most

    assert large_tensors_with(2) == large_tensors_with(5)


def test_by_nnunets_convention_members_and_flips_are_averaged_alike() -> None:
    seen, networks = tensor(), [biased(-1.0), corner]
    predicted = run(ensemble(*networks, convention="nnunet", flips="S"), seen)
    passes = [torch.softmax(network(seen.flip(flip)).flip(flip)[0], 0) for network in networks for flip in ([], [2])]
    np.testing.assert_allclose(predicted.probabilities, sum(passes) / 4, atol=1e-6)

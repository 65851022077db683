"""The sliding window, and what happens when memory runs out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.bundle import Model
from pipeline.errors import Exhausted
from pipeline.infer import InferenceOptions, predict
from tests.fakes import CARD, threshold_model


def test_probabilities_of_the_whole_tensor() -> None:
    tensor = torch.rand(1, 1, 30, 41, 52)
    model = threshold_model(patch=(16, 16, 16))
    probabilities = predict(tensor, model, InferenceOptions(batch_size=3)).probabilities
    assert probabilities.shape == (2, 30, 41, 52)
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(30, 41, 52))
    expected = torch.softmax(model.network(tensor)[0], dim=0)
    torch.testing.assert_close(probabilities, expected, atol=1e-4, rtol=1e-4)


def test_tensors_smaller_than_the_patch() -> None:
    tensor = torch.rand(1, 1, 3, 70, 5)
    model = threshold_model(patch=(16, 16, 16))
    expected = torch.softmax(model.network(tensor)[0], dim=0)
    probabilities = predict(tensor, model, InferenceOptions()).probabilities
    torch.testing.assert_close(probabilities, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(30, 41, 52), (16, 16, 16), (3, 17, 33)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_progress_ends_at_1(shape: tuple[int, int, int], overlap: float, batch_size: int) -> None:
    shares: list[float] = []
    model = threshold_model(patch=(16, 16, 16), overlap=overlap)
    predict(torch.rand(1, 1, *shape), model, InferenceOptions(batch_size=batch_size, progress=shares.append))
    assert shares == sorted(set(shares)), "each batch moves on"
    assert shares[-1] == pytest.approx(1)


def failing_model(windows_that_fit: int, message: str) -> Model:
    working = threshold_model(patch=(16, 16, 16)).network

    def network(windows: Tensor) -> Tensor:
        if len(windows) > windows_that_fit:
            raise torch.OutOfMemoryError(message) if "CUDA" in message else RuntimeError(message)
        return working(windows)

    return Model(threshold_model(patch=(16, 16, 16)).card, network)


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried to allocate", "DefaultCPUAllocator: can't allocate memory"]
)
def test_case_28_out_of_memory_falls_back_to_one_window_at_a_time(message: str) -> None:
    tensor = torch.rand(1, 1, 30, 41, 52)
    expected = predict(tensor, threshold_model(patch=(16, 16, 16)), InferenceOptions()).probabilities
    predicted = predict(tensor, failing_model(1, message), InferenceOptions(batch_size=4))
    torch.testing.assert_close(predicted.probabilities, expected)


def test_case_28_exhausted_when_one_window_is_too_much() -> None:
    with pytest.raises(Exhausted, match="out of memory on cpu"):
        predict(torch.rand(1, 1, 20, 20, 20), failing_model(0, "CUDA out of memory"), InferenceOptions())


def test_other_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="weights do not fit"):
        predict(torch.rand(1, 1, 20, 20, 20), failing_model(0, "weights do not fit"), InferenceOptions())


def test_no_gradients_are_kept() -> None:
    layer = torch.nn.Conv3d(1, 2, 1)
    assert not predict(torch.rand(1, 1, 8, 8, 8), Model(CARD, layer), InferenceOptions()).probabilities.requires_grad

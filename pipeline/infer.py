"""A sliding window around a model: tensor -> probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from models.bundle import Model
from models.card import Card
from pipeline.errors import Exhausted
from pipeline.windows import count_windows, stitch

_SLAB_SLICES = 32


@dataclass(frozen=True)
class InferenceOptions:
    """How to run a model.

    device: a torch device, "cpu" or "cuda:0"; the network must be there. batch_size: windows at a time.
    progress: called with the share of windows done, 0..1, after each batch.
    """

    device: str = "cpu"
    batch_size: int = 1
    progress: Callable[[float], None] | None = None


def predict(tensor: Tensor, model: Model, options: InferenceOptions) -> Tensor:
    """Probabilities of each label: float32 on the CPU, shape (label, slice, row, column).

    tensor: shape (1, 1, slice, row, column), as `to_tensor` makes it; where it is smaller than the model's patch it is
    padded with 0 for the network and the padding cut off again. Logits are blended by Gaussian weights where windows
    overlap; the windows lie as MONAI or as nnU-Net lays them, by the card's convention. When memory runs out, the
    windows go one at a time and the result is put together on the host; raises `Exhausted` when that fails too.
    """
    try:
        return _probabilities(tensor, model, options, options.batch_size, options.device)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    # The failed attempt's tensors are held by its traceback until the handler above is left: only here they are free.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        return _probabilities(tensor, model, options, 1, "cpu")
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise Exhausted(f"out of memory on {options.device} with one window of {model.card.patch} at a time") from error


def _probabilities(
    tensor: Tensor, model: Model, options: InferenceOptions, batch_size: int, stitching_device: str
) -> Tensor:
    network = _with_progress(model.network, options.progress, _count_windows(tensor, model.card))
    with torch.inference_mode():
        if model.card.convention == "nnunet":
            logits = stitch(tensor, network, model.card, batch_size, (options.device, stitching_device))
        else:
            logits = sliding_window_inference(
                tensor,
                roi_size=model.card.patch,
                sw_batch_size=batch_size,
                predictor=network,
                overlap=model.card.overlap,
                mode="gaussian",
                sw_device=options.device,
                device=stitching_device,
            )[0]
        return _softmax(logits).float().cpu()


def _softmax(logits: Tensor) -> Tensor:
    """In place, a few slices at a time: a second copy of a large volume's many labels would fill the memory."""
    for slab in logits.split(_SLAB_SLICES, dim=1):
        slab.copy_(torch.softmax(slab, dim=0))
    return logits


def _with_progress(
    network: Callable[[Tensor], Tensor], progress: Callable[[float], None] | None, total: int
) -> Callable[[Tensor], Tensor]:
    if progress is None:
        return network
    done = 0

    def run(windows: Tensor) -> Tensor:
        nonlocal done
        logits = network(windows)
        done += len(windows)
        progress(min(1.0, done / total))
        return logits

    return run


def _count_windows(tensor: Tensor, card: Card) -> int:
    """Number of windows over a tensor: MONAI's take steps of patch * (1 - overlap) per axis, the last one flush."""
    if card.convention == "nnunet":
        return count_windows(tuple(tensor.shape[2:]), card)
    steps = [max(1, int(patch * (1 - card.overlap))) for patch in card.patch]
    counts = (
        math.ceil(max(0, size - patch) / step) + 1
        for size, patch, step in zip(tensor.shape[2:], card.patch, steps, strict=True)
    )
    return math.prod(counts)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA raises a type of its own; the allocator of the host and MONAI raise a bare RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "Seems to be OOM")
    )

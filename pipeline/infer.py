"""A sliding window around a model, once for each member and way to mirror: tensor -> probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Model, Network
from models.card import Card
from pipeline.agreement import Agreement, Packed, agree, pack
from pipeline.errors import Exhausted
from pipeline.postprocess import bounding_box, largest_component
from pipeline.windows import count_windows, stitch

_SLAB_SLICES = 32


@dataclass(frozen=True)
class InferenceOptions:
    """How to run a model.

    device: a torch device, "cpu" or "cuda:0"; the network must be there. batch_size: windows at a time.
    progress: called with the share of the windows of all passes done, 0..1, after each batch.
    """

    device: str = "cpu"
    batch_size: int = 1
    progress: Callable[[float], None] | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """probabilities: of each label, the mean over all passes; float32 on the CPU, shape (label, slice, row, column).

    agreement: of what each pass found of the target, its largest piece; None of one pass alone.
    """

    probabilities: Tensor
    agreement: Agreement | None = None


def predict(tensor: Tensor, model: Model, options: InferenceOptions) -> Prediction:
    """Run every member of a model on a tensor, and on its mirror images where the card asks for them.

    tensor: shape (1, 1, slice, row, column), as `to_tensor` makes it; where it is smaller than the model's patch it is
    padded for the network and the padding cut off again. The windows lie as MONAI or, by its convention, as nnU-Net
    lays them; padding and blending are the card's, in nnU-Net's convention always 0 and Gaussian. When memory runs out,
    the windows go one at a time and the result is put together on the host; raises `Exhausted` when that fails too.
    """
    try:
        return _average(tensor, model, options, options.batch_size, options.device)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    # The failed attempt's tensors are held by its traceback until the handler above is left: only here they are free.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        return _average(tensor, model, options, 1, "cpu")
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise Exhausted(f"out of memory on {options.device} with one window of {model.card.patch} at a time") from error


def _average(
    tensor: Tensor, model: Model, options: InferenceOptions, batch_size: int, stitching_device: str
) -> Prediction:
    """The passes one after another: besides their sum, one volume of probabilities is in memory at a time."""
    card, mirrorings = model.card, _mirrorings(model.card)
    passes = [(network, axes) for network in model.networks for axes in mirrorings]
    progress = _Progress(len(passes) * _count_windows(tensor, card), options.progress)
    total, masks = torch.empty(0), list[Packed]()
    with torch.inference_mode():
        for network, axes in passes:
            seen = tensor.flip(axes) if axes else tensor
            devices = (options.device, stitching_device)
            one = _probabilities(seen, progress.around(network), card, batch_size, devices)
            if len(passes) == 1:
                return Prediction(one)
            masks.append(pack(np.flip(_found(one, card.target), axes)))
            total = _add(total, one, axes) if len(total) else one
            del one  # or it would be held while the next pass makes its own
        return Prediction(total.div_(len(passes)), agree(masks))


def _mirrorings(card: Card) -> list[tuple[int, ...]]:
    """The axes of every way to mirror, counted from the last; the first mirrors nothing."""
    axes = [card.axis(towards) - 3 for towards in card.flips]
    return [some for count in range(len(axes) + 1) for some in combinations(axes, count)]


def _probabilities(tensor: Tensor, network: Network, card: Card, batch_size: int, devices: tuple[str, str]) -> Tensor:
    """One pass. devices: where the windows run and where they are put together."""
    if card.convention == "nnunet":
        logits = stitch(tensor, network, card, batch_size, devices)
    else:
        logits = sliding_window_inference(
            tensor,
            roi_size=card.patch,
            sw_batch_size=batch_size,
            predictor=network,
            overlap=card.overlap,
            mode=card.blending,
            padding_mode=card.padding,
            sw_device=devices[0],
            device=devices[1],
        )[0]
    return _softmax(logits).float().cpu()


def _add(total: Tensor, one: Tensor, axes: tuple[int, ...]) -> Tensor:
    """In place, and turned back label by label."""
    for label, added in zip(total, one, strict=True):
        label.add_(added.flip(axes) if axes else added)
    return total


def _found(probabilities: Tensor, target: int) -> NDArray[np.bool_]:
    """The largest piece of the target, as it would be measured if this pass were the only one."""
    mask = torch.empty(probabilities.shape[1:], dtype=torch.bool)
    for part, slab in zip(mask.split(_SLAB_SLICES), probabilities.split(_SLAB_SLICES, dim=1), strict=True):
        part.copy_(slab.argmax(dim=0) == target)
    found = mask.numpy()
    if (box := bounding_box(found)) is not None:
        found[box], _ = largest_component(found[box])
    return found


def _softmax(logits: Tensor) -> Tensor:
    """In place, a few slices at a time: a second copy of a large volume's many labels would fill the memory."""
    for slab in logits.split(_SLAB_SLICES, dim=1):
        slab.copy_(torch.softmax(slab, dim=0))
    return logits


@dataclass
class _Progress:
    """Counts windows over all passes."""

    total: int
    report: Callable[[float], None] | None
    done: int = 0

    def around(self, network: Network) -> Network:
        """The network; its windows are counted."""
        return partial(self._run, network)

    def _run(self, network: Network, windows: Tensor) -> Tensor:
        logits = network(windows)
        self.done += len(windows)
        if self.report:
            self.report(min(1.0, self.done / self.total))
        return logits


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

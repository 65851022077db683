"""Windows over a volume as nnU-Net lays and blends them, so that its models see what they were judged with.

MONAI's sliding window steps by a fixed number of voxels and sets the last window flush with the end; nnU-Net spreads
the windows evenly. The two differ by several voxels, which a strided network notices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.card import Card


def count_windows(shape: tuple[int, ...], card: Card) -> int:
    """How many windows cover a volume of this shape."""
    return math.prod(len(_starts(size, patch, card.overlap)) for size, patch in zip(shape, card.patch, strict=True))


def stitch(
    tensor: Tensor, network: Callable[[Tensor], Tensor], card: Card, batch_size: int, devices: tuple[str, str]
) -> Tensor:
    """Logits of a whole volume: float32, shape (label, slice, row, column), on the second device.

    tensor: shape (1, 1, slice, row, column); where it is smaller than a patch, 0 is put around it for the network.
    devices: where the windows run and where they are put together. Where windows overlap, their logits are averaged
    with Gaussian weights: sigma an eighth of the patch.
    """
    run_on, keep_on = devices
    shape = tensor.shape[2:]
    missing = [max(0, patch - size) for patch, size in zip(card.patch, shape, strict=True)]
    before = [lacking // 2 for lacking in missing]
    around = [side for lacking, low in zip(missing, before, strict=True) for side in (lacking - low, low)]
    padded = pad(tensor, around[::-1])
    weights = _gaussian(card.patch).to(keep_on)
    logits, total = torch.empty(0), torch.zeros(padded.shape[2:], device=keep_on)
    axes = (_starts(size, patch, card.overlap) for size, patch in zip(padded.shape[2:], card.patch, strict=True))
    corners = list(itertools.product(*axes))
    for first in range(0, len(corners), batch_size):
        boxes = [_box(corner, card.patch) for corner in corners[first : first + batch_size]]
        windows = torch.cat([padded[:, :, box[0], box[1], box[2]] for box in boxes]).to(run_on)
        results = network(windows).to(keep_on, torch.float32)
        if not len(logits):
            logits = torch.zeros((results.shape[1], *padded.shape[2:]), device=keep_on)
        for box, result in zip(boxes, results, strict=True):
            logits[(slice(None), *box)] += result.mul_(weights)
            total[box] += weights
    logits /= total
    inner = tuple(slice(low, low + size) for low, size in zip(before, shape, strict=True))
    return logits[(slice(None), *inner)]


def _starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis: as few as overlap at least this much, evenly apart."""
    room = max(0, size - patch)
    steps = math.ceil(room / (patch * (1 - overlap)))
    return [round(room * step / steps) for step in range(steps + 1)] if steps else [0]


def _gaussian(patch: tuple[int, int, int]) -> Tensor:
    """Weights of a window's voxels, 1 at the voxel `patch // 2`; shape: patch."""
    sides = [torch.exp(-0.5 * ((torch.arange(size) - size // 2) / (size / 8)) ** 2) for size in patch]
    return sides[0][:, None, None] * sides[1][:, None] * sides[2]


def _box(corner: tuple[int, ...], patch: tuple[int, int, int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(corner, patch, strict=True))

"""What is minimised, by name; and how much of it counts where only the target was drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss, FocalLoss, TverskyLoss
from torch import Tensor

from training.recipe import Named

Loss = Callable[[Tensor, Tensor], Tensor]
_SOFTMAX = {"to_onehot_y": True, "softmax": True, "include_background": False}


def make_loss(named: Named) -> Loss:
    """A loss of logits (N, label, slice, row, column) and labels int64 (N, 1, ...); raises ValueError if unknown."""
    if named.name not in LOSSES:
        raise ValueError(f"unknown loss {named.name!r}; known are {', '.join(LOSSES)}")
    try:
        return LOSSES[named.name](**named.arguments)
    except TypeError as error:
        raise ValueError(f"loss {named.name}: {error}") from None


def target_against_rest(logits: Tensor, target: int) -> Tensor:
    """Two logits out of many: of all labels but the target together, and of the target."""
    rest = torch.cat([logits[:, :target], logits[:, target + 1 :]], 1).logsumexp(1, keepdim=True)
    return torch.cat([rest, logits[:, target : target + 1]], 1)


def _binary_dice(**more: Any) -> Loss:
    """Soft Dice and binary cross entropy of each foreground label against all else."""
    dice = DiceLoss(sigmoid=True, **more)
    entropy = torch.nn.BCEWithLogitsLoss()

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        channels = range(1, logits.shape[1])
        scores = torch.cat([target_against_rest(logits, at).diff(dim=1) for at in channels], 1)
        truth = torch.cat([labels == at for at in channels], 1).to(scores.dtype)
        total: Tensor = dice(scores, truth) + entropy(scores, truth)
        return total

    return loss


# BCE is taken of one foreground label's logit against the background's: for two labels it is the cross entropy.
LOSSES: dict[str, Callable[..., Loss]] = {
    "Dice": lambda **more: DiceLoss(**_SOFTMAX, **more),
    "DiceCE": lambda **more: DiceCELoss(**_SOFTMAX, **more),
    "BCEDice": _binary_dice,
    "DiceFocal": lambda **more: DiceFocalLoss(**_SOFTMAX, **more),
    "Tversky": lambda **more: TverskyLoss(**_SOFTMAX, **more),
    "Focal": lambda **more: FocalLoss(to_onehot_y=True, use_softmax=True, include_background=True, **more),
}

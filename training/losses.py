"""What is minimised: soft Dice and cross entropy, on all labels of synthetic CT, on the pancreas alone of slices."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch import Tensor


def full_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """All labels are known. logits: (N, label, S, R, C); labels: int64 (N, S, R, C)."""
    loss: Tensor = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)(
        logits, labels[:, None]
    )
    return loss


def target_loss(logits: Tensor, mask: Tensor, target: int) -> Tensor:
    """Only one label is known: its probability against that of all others together. mask: int64 (N, S, R, C)."""
    rest = torch.cat([logits[:, :target], logits[:, target + 1 :]], 1).logsumexp(1, keepdim=True)
    return full_loss(torch.cat([rest, logits[:, target : target + 1]], 1), mask)

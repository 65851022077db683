"""How far a run is, how fast it learns, and when it ends."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.recipe import Optimisation

_Tensors = list[Tensor] | tuple[Tensor, ...]
_LEAST = 0.02  # of the learning rate, at the end of a polynomial


class Pace:
    """Steps, seconds, the best figure and the learning rate. steps, seconds: after either of them the run is over."""

    def __init__(self, choices: Optimisation, steps: int, seconds: float) -> None:
        self._choices, self._steps, self._limit = choices, steps, seconds
        self.step, self.seconds, self.best = 0, 0.0, -1.0
        self._waited, self._plateaus = 0, 0

    @property
    def share(self) -> float:
        """How much of the run is done, 0..1."""
        return min(1.0, max(self.step / self._steps, self.seconds / self._limit))

    @property
    def is_over(self) -> bool:
        """Whether the steps or the time are used up, or nothing has improved for too long."""
        return self.share >= 1 or 0 < self._choices.stop_after <= self._waited

    @property
    def seconds_left(self) -> float:
        """As fast as until now."""
        return self.seconds * (1 / self.share - 1) if self.share else math.inf

    @property
    def learning_rate(self) -> float:
        """The rate for the next step."""
        full = self._choices.learning_rate * min(1.0, (self.step + 1) / max(1, self._choices.warm_up))
        match self._choices.schedule:
            case "polynomial":
                return full * max(_LEAST, 1 - self.share) ** 0.9
            case "cosine":
                return full * (1 + math.cos(math.pi * self.share)) / 2
            case "plateau":
                return float(full * self._choices.plateau_factor**self._plateaus)
            case _:
                return full

    def advance(self, seconds: float) -> None:
        """One step more, which took some seconds."""
        self.step += 1
        self.seconds += seconds

    def note(self, figure: float) -> None:
        """A validation's figure, more being better."""
        if figure > self.best:
            self.best, self._waited = figure, 0
            return
        self._waited += 1
        self._plateaus += self._waited % self._choices.plateau_patience == 0

    def state(self) -> dict[str, float]:
        """All that a checkpoint needs."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "waited": self._waited,
            "plateaus": self._plateaus,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.step, self.seconds, self.best = int(state["step"]), float(state["seconds"]), float(state["best"])
        self._waited, self._plateaus = int(state["waited"]), int(state["plateaus"])


def make_optimizer(choices: Optimisation, network: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser; SGD with Nesterov's momentum of 0.99, as nnU-Net has it."""
    encoder = {id(weights) for weights in getattr(network, "encoder", nn.Module()).parameters()}
    parts = [
        [weights for weights in network.parameters() if (id(weights) in encoder) is is_in] for is_in in (True, False)
    ]
    shares = (choices.encoder_rate, 1.0)
    groups = [{"params": part, "share": share} for part, share in zip(parts, shares, strict=True) if part]
    more: dict[str, Any] = {"momentum": 0.99, "nesterov": True} if choices.optimizer == "SGD" else {}
    kind = getattr(torch.optim, choices.optimizer)
    optimizer: torch.optim.Optimizer = kind(groups, lr=choices.learning_rate, weight_decay=choices.weight_decay, **more)
    return optimizer


def average_of(network: nn.Module, choices: Optimisation) -> AveragedModel | None:
    """The moving average that a recipe asks for; at first it forgets sooner, lest it keep the untrained weights."""
    if not choices.ema:
        return None

    def update(averages: _Tensors, weights: _Tensors, count: Tensor | int) -> None:
        get_ema_multi_avg_fn(min(choices.ema, (1 + int(count)) / (10 + int(count))))(averages, weights, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)

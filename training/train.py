"""Train a model by a recipe: `python -m training.train --recipe R.toml --data DIR --out runs/NAME`.

Several GPUs: `torchrun --nproc-per-node N -m training.train ...`.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from models.lite_unet import inflate
from models.networks import build
from training.batches import Draws, Part, Source, loader
from training.checkpoints import read_weights
from training.journal import Journal
from training.losses import make_loss, target_against_rest
from training.pace import Pace, average_of, make_optimizer
from training.pretrained import begin_with_imagenet
from training.ranks import Ranks, join
from training.recipe import Recipe, read_recipe
from training.sources import make_source, parse_fold
from training.validation import validate

_PREVIEWS = 6
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Run:
    """Where a run stands on disk, and how it computes. minutes: ends it sooner than the recipe's steps would.

    weights: to begin with, of the same network or of its 2-D sister.
    """

    folder: Path
    minutes: float = float("inf")
    seed: int = 0
    workers: int = 0
    weights: Path | None = None
    tensorboard: bool = False

    @property
    def last(self) -> Path:
        """The newest checkpoint, from which the run resumes."""
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        """The weights that were best on the validation data."""
        return self.folder / "best.pt"


class Trainer:
    """Trains one network; it can be resumed from the last checkpoint, and then goes on as it would have."""

    def __init__(self, recipe: Recipe, run: Run, source: Source, ranks: Ranks) -> None:
        torch.manual_seed(run.seed)
        self._recipe, self._run, self._source, self._ranks = recipe, run, source, ranks
        self.network: nn.Module = build(recipe.network.name, recipe.network.arguments).to(ranks.device)
        if recipe.pretrained:
            begin_with_imagenet(self.network)
        for weights in self.network.parameters():  # convolutions in this order are up to twice as fast on the CPU
            if weights.dim() in _CHANNELS_LAST:
                weights.data = weights.data.contiguous(memory_format=_CHANNELS_LAST[weights.dim()])
        choices = recipe.optimisation
        self._loss = make_loss(recipe.loss)
        self._optimizer = make_optimizer(choices, self.network)
        self._pace = Pace(choices, recipe.steps, 60 * run.minutes)
        self._precision = getattr(torch, choices.precision)
        self._scaler = torch.GradScaler(ranks.device.split(":")[0], enabled=choices.precision == "float16")
        self._average = average_of(self.network, choices)
        run.folder.mkdir(parents=True, exist_ok=True)
        if run.last.exists():
            self._resume()
        elif run.weights:
            inflate(self.network, read_weights(run.weights, ranks.device))

    def train(self) -> float:
        """Train to the end of the recipe, of the time or of progress; returns the best validation figure."""
        journal = Journal(self._run.folder, tensorboard=self._run.tensorboard) if self._ranks.is_first else None
        every = self._recipe.validate_every or max(1, self._source.steps_per_epoch // self._ranks.count)
        shared = self._ranks.share(self.network)
        draws = Draws(self._source, self._pace.step, self._ranks.rank, self._ranks.count)
        losses: list[float] = []
        with _progress(self._recipe, self._pace, visible=self._ranks.is_first) as advance:
            lap = time.monotonic()
            for draw in itertools.takewhile(lambda _: not self._pace.is_over, loader(draws, self._run.workers)):
                losses += [self._learn(shared, parts) for parts in draw]
                lap, before = time.monotonic(), lap
                self._pace.advance(self._ranks.tell(lap - before))
                advance(self._pace.step, losses[-1])
                if self._pace.step % every == 0 or self._pace.is_over:
                    self._save()  # whatever befalls the validation, what was learnt is kept
                    self._pace.note(self._ranks.tell(self._validate(journal, sum(losses) / len(losses))))
                    losses.clear()
                    self._save()
        return self._pace.best

    @property
    def _validated(self) -> nn.Module:
        return self._average.module if self._average else self.network

    def _learn(self, network: nn.Module, parts: tuple[Part, ...]) -> float:
        network.train()
        if self._recipe.optimisation.frozen_statistics:
            for module in network.modules():
                module.train(not isinstance(module, nn.modules.batchnorm._BatchNorm))
        # By the step, so that dropout too is the same in a resumed run.
        torch.manual_seed(hash((self._run.seed, self._pace.step, self._ranks.rank)))
        for group in self._optimizer.param_groups:
            group["lr"] = self._pace.learning_rate * group["share"]
        device = self._ranks.device
        total = torch.zeros((), device=device)
        for part in parts:
            with self._autocast():
                logits = network(part.images.to(device))
            total = total + self._part_loss(logits.float(), part, device)
        self._optimizer.zero_grad()
        self._scaler.scale(total).backward()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), self._recipe.optimisation.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average:
            self._average.update_parameters(self.network)
        return float(total.detach())

    def _autocast(self) -> torch.autocast:
        kind = self._ranks.device.split(":")[0]
        return torch.autocast(kind, self._precision, enabled=self._precision != torch.float32)

    def _part_loss(self, logits: torch.Tensor, part: Part, device: str) -> torch.Tensor:
        labels = part.labels[:, None].to(device)
        if part.partial:
            target = self._recipe.card.target
            logits, labels = target_against_rest(logits, target), (labels == target).long()
        return self._loss(logits, labels)

    def _validate(self, journal: Journal | None, loss: float) -> float:
        if journal is None:  # the first process tells the others
            return 0.0
        card = self._recipe.card
        looks = {"overlap": card.overlap, "padding_mode": card.padding}
        figures = validate(
            self._validated, self._source.checks(), card.target, precision=self._autocast(), keep=_PREVIEWS, **looks
        )
        pace = self._pace
        journal.write(figures, step=pace.step, seconds=pace.seconds, learning_rate=pace.learning_rate, loss=loss)
        groups = ", ".join(f"{name} {value:.3f}" for name, value in figures.groups.items())
        print(f"step {pace.step}: loss {loss:.3f}, Dice {groups}; {pace.seconds_left:.0f} s left", flush=True)
        if figures.mean > pace.best:
            _write(self._validated.state_dict(), self._run.best)
        return figures.mean

    def _save(self) -> None:
        if not self._ranks.is_first:
            return
        state: dict[str, Any] = {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}
        state |= {"scaler": self._scaler.state_dict(), "pace": self._pace.state()}
        if self._average:
            state["average"] = self._average.state_dict()
        _write(state, self._run.last)

    def _resume(self) -> None:
        state: dict[str, Any] = torch.load(self._run.last, map_location=self._ranks.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._pace.restore(state["pace"])
        if self._average:
            self._average.load_state_dict(state["average"])
        print(f"resumed at step {self._pace.step}", flush=True)


def _write(content: Any, path: Path) -> None:
    """In one move: a run that is killed while it writes keeps its former checkpoint."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


@contextmanager
def _progress(recipe: Recipe, pace: Pace, *, visible: bool) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=not visible) as progress:
        task = progress.add_task(recipe.name, total=recipe.steps, completed=pace.step)
        yield lambda step, loss: progress.update(task, completed=step, description=f"{recipe.name} loss {loss:.3f}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent / "recipes" / "pancreas-3d.toml")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training data, as the recipe names it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="ends the run sooner than its steps")
    parser.add_argument("--steps", type=int, help="in the place of the recipe's")
    parser.add_argument("--fold", help="K/N: validate on the K-th of N parts of the patients, K from 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--weights", type=Path, help="weights of another run to begin with")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's events too")
    given = parser.parse_args(arguments)
    recipe = read_recipe(given.recipe)
    if given.steps:
        recipe = recipe.model_copy(update={"steps": given.steps})
    run = Run(given.out, given.minutes, given.seed, given.workers, given.weights, given.tensorboard)
    with join(given.device) as ranks:
        source = make_source(recipe, given.data, given.out, parse_fold(given.fold))
        best = Trainer(recipe, run, source, ranks).train()
        if ranks.is_first:
            print(f"best mean Dice {best:.3f}; weights in {run.best}")


if __name__ == "__main__":
    main()

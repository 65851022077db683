"""Train a model by a recipe: `python -m training.train --recipe R.toml --data DIR --out runs/NAME --minutes 60`."""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from models.networks import build
from training.data import VALIDATION_SEEDS, Batch, Batches, loader, read_anatomies, scale, synthetic_sample
from training.losses import full_loss, target_loss
from training.recipe import Recipe, read_recipe
from training.slices import Slice, read_slices
from training.splits import split_by_patient
from training.synthetic import Anatomy

TARGET = 1
SPLIT_SEED = 0


@dataclass(frozen=True)
class Run:
    """Where a run stands on disk, and how long it may take. weights: to begin with, of the same network."""

    folder: Path
    minutes: float
    steps: int
    seed: int
    workers: int
    device: str
    weights: Path | None = None

    @property
    def last(self) -> Path:
        """The newest checkpoint, from which the run resumes."""
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        """The weights that were best on the validation data."""
        return self.folder / "best.pt"


class Trainer:
    """Trains one network; every step can be resumed from the last checkpoint."""

    def __init__(self, recipe: Recipe, run: Run, anatomies: list[Anatomy], slices: list[Slice]) -> None:
        torch.manual_seed(run.seed)
        arguments = dict(recipe.network)
        self._recipe, self._run, self._anatomies = recipe, run, anatomies
        self._training, self._validation = split_by_patient(slices, recipe.held_out_patients, SPLIT_SEED)
        self.network: nn.Module = build(arguments.pop("name"), arguments).to(run.device)
        for weights in self.network.parameters():
            if weights.dim() == 5:  # a convolution in this order is a third faster on the CPU
                weights.data = weights.data.contiguous(memory_format=torch.channels_last_3d)
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
        self._step, self._seconds, self._best = 0, 0.0, -1.0
        run.folder.mkdir(parents=True, exist_ok=True)
        if run.last.exists():
            self._resume()
        elif run.weights:
            self.network.load_state_dict(torch.load(run.weights, map_location=run.device, weights_only=True))

    def train(self) -> float:
        """Train until the time or the steps are used up; returns the best validation figure (mean Dice)."""
        batches = Batches(self._recipe, self._anatomies, self._training, self._step)
        started, before = time.monotonic(), self._seconds
        for batch in loader(batches, self._run.workers):
            # Making synthetic CT costs as much as learning from it: each is learnt from more than once.
            loss = [self._learn(batch, at) for at in range(self._recipe.repeats)][-1]
            self._step += 1
            self._seconds = before + time.monotonic() - started
            over = self._share_done() >= 1
            if self._step % self._recipe.validate_every == 0 or over:
                self._validate(loss)
            if over:
                return self._best
        raise RuntimeError("the stream of batches ended")

    def _share_done(self) -> float:
        return max(self._seconds / (60 * self._run.minutes), self._step / self._run.steps)

    def _learn(self, batch: Batch, at: int) -> float:
        self.network.train()
        rate = self._recipe.learning_rate * max(0.02, 1 - self._share_done()) ** 0.9  # polynomial, as nnU-Net
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        device = self._run.device
        loss = full_loss(self.network(batch.synthetic.to(device)), batch.labels.to(device))
        slices, masks = (part.chunk(self._recipe.repeats)[at].to(device) for part in (batch.slices, batch.masks))
        loss = loss + target_loss(self.network(slices), masks, TARGET)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 12.0)
        self._optimizer.step()
        return float(loss.detach())

    def _validate(self, loss: float) -> None:
        real = slice_dice(self.network, self._recipe, self._validation, self._run.device)
        synthetic = synthetic_dice(self.network, self._recipe, self._anatomies, self._run.device)
        figure = (real + synthetic) / 2
        left = self._seconds * (1 / self._share_done() - 1)
        print(
            f"step {self._step}: loss {loss:.3f}, slices {real:.3f}, synthetic {synthetic:.3f}; {left:.0f} s left",
            flush=True,
        )
        with (self._run.folder / "log.csv").open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow([self._step, round(self._seconds), loss, real, synthetic])
        if figure > self._best:
            self._best = figure
            torch.save(self.network.state_dict(), self._run.best)
        state = {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}
        torch.save({**state, "step": self._step, "seconds": self._seconds, "best": self._best}, self._run.last)

    def _resume(self) -> None:
        state: dict[str, Any] = torch.load(self._run.last, map_location=self._run.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._step, self._seconds, self._best = state["step"], state["seconds"], state["best"]
        print(f"resumed at step {self._step}", flush=True)


def dice(found: Tensor, truth: Tensor) -> float:
    """Dice of two masks; 1.0 where both are empty."""
    total = float(found.sum() + truth.sum())
    return 2 * float((found & truth).sum()) / total if total else 1.0


@torch.inference_mode()
def slice_dice(network: nn.Module, recipe: Recipe, slices: list[Slice], device: str) -> float:
    """Mean in-plane Dice over whole slices, each repeated to a thin pseudo-volume and seen through windows.

    Through windows as a patient's series is: to see a whole slice at once, with all its air, shifts what instance
    normalisation makes of it, and takes a third off the figure.
    """
    network.eval()
    window = (recipe.slice_depth, *recipe.patch[1:])
    figures = []
    for item in slices:
        volume = scale(item.hounsfield, recipe)[None, None, None].repeat(1, 1, recipe.slice_depth, 1, 1).to(device)
        logits = sliding_window_inference(volume, window, 1, network, recipe.overlap, mode="gaussian")
        found = logits[0].argmax(0)[recipe.slice_depth // 2].cpu() == TARGET
        figures.append(dice(found, item.mask > 0.5))
    return sum(figures) / len(figures)


@torch.inference_mode()
def synthetic_dice(network: nn.Module, recipe: Recipe, anatomies: list[Anatomy], device: str) -> float:
    """Mean Dice over synthetic patches of seeds that training never uses."""
    network.eval()
    figures = []
    for seed in VALIDATION_SEEDS:
        sample = synthetic_sample(anatomies, recipe, seed)
        found = network(scale(sample.hounsfield, recipe)[None, None].to(device))[0].argmax(0).cpu() == TARGET
        figures.append(dice(found, sample.labels == TARGET))
    return sum(figures) / len(figures)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent / "recipes" / "pancreas-3d.toml")
    parser.add_argument("--data", type=Path, required=True, help="folder with anatomies/ and nih-slices/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--weights", type=Path, help="weights of another run to begin with")
    given = parser.parse_args()
    run = Run(given.out, given.minutes, given.steps, given.seed, given.workers, given.device, given.weights)
    anatomies, slices = read_anatomies(given.data / "anatomies"), read_slices(given.data / "nih-slices")
    best = Trainer(read_recipe(given.recipe), run, anatomies, slices).train()
    print(f"best mean Dice {best:.3f}; weights in {run.best}")


if __name__ == "__main__":
    main()

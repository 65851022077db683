"""Write a trained network as a bundle: `python -m training.export --run runs/NAME --version V --out FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from models.bundle import write_bundle
from models.card import Card
from models.networks import build
from training.recipe import Recipe, read_recipe


def export(recipe: Recipe, checkpoint: Path, version: str, folder: Path) -> Card:
    """Write the bundle; a model card (`docs/README.md`) that is there already is kept. Returns the card.

    checkpoint: `best.pt`, or `last.pt`, of which the moving average is taken where the recipe keeps one.
    """
    card = recipe.to_card(version)
    network = build(card.network, card.network_arguments)
    network.load_state_dict(_weights(torch.load(checkpoint, map_location="cpu", weights_only=True)))
    text = folder / "docs" / "README.md"
    return write_bundle(
        folder, card, network, text.read_text(encoding="utf-8") if text.exists() else f"# {card.name}\n"
    )


def _weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    if "average" in state:
        prefix = "module."  # of AveragedModel, beside its own counter
        return {name.removeprefix(prefix): of for name, of in state["average"].items() if name.startswith(prefix)}
    weights: dict[str, torch.Tensor] = state.get("network", state)
    return weights


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent / "recipes" / "pancreas-3d.toml")
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="the end of the schedule, as nnU-Net does, or the best on the small validation data",
    )
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    given = parser.parse_args()
    card = export(read_recipe(given.recipe), given.run / f"{given.checkpoint}.pt", given.version, given.out)
    print(f"{given.out}: {card.name} {card.version}, weights {card.sha256}")


if __name__ == "__main__":
    main()

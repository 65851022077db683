"""Write a trained network as a bundle: `python -m training.export --run runs/NAME --version V --out FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from models.bundle import MODEL_CARD, write_bundle
from models.card import Card
from models.networks import build
from training.checkpoints import read_weights
from training.recipe import Recipe, read_recipe


def export(recipe: Recipe, checkpoints: Sequence[Path], version: str, folder: Path, *, half: bool = False) -> Card:
    """Write the bundle; a model card (`docs/README.md`) that is there already is kept. Returns the card.

    checkpoints: of one run, or of several as members of an ensemble. half: keep the weights in half precision.
    """
    card = recipe.to_card(version)
    networks = [build(card.network, card.network_arguments) for _ in checkpoints]
    for network, checkpoint in zip(networks, checkpoints, strict=True):
        network.load_state_dict(read_weights(checkpoint))
    text = folder / MODEL_CARD
    model_card = text.read_text(encoding="utf-8") if text.exists() else f"# {card.name}\n"
    return write_bundle(folder, card, networks, model_card, half=half)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent / "recipes" / "pancreas-3d.toml")
    runs = "folder of the training run; of several, such as folds, each becomes a member of an ensemble"
    parser.add_argument("--run", type=Path, action="append", required=True, help=runs)
    parser.add_argument("--half", action="store_true", help="keep the weights in half precision")
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="the end of the schedule, as nnU-Net does, or the best on the small validation data",
    )
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    given = parser.parse_args()
    checkpoints = [run / f"{given.checkpoint}.pt" for run in given.run]
    card = export(read_recipe(given.recipe), checkpoints, given.version, given.out, half=given.half)
    print(f"{given.out}: {card.name} {card.version}, weights {card.sha256}")


if __name__ == "__main__":
    main()

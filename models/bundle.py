"""Read, verify and write a MONAI bundle folder: metadata, weights and model card.

Of a bundle nothing is executed: `configs/metadata.json` is read as data, and the weights as tensors alone, after their
SHA-256 was found right. What is written follows MONAI's layout, with configurations for MONAI's own tools to infer and
to train where the model keeps to MONAI's conventions.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.card import Card
from models.configs import OURS, Origin, inference, metadata, train
from models.networks import build

METADATA = Path("configs/metadata.json")
INFERENCE = Path("configs/inference.json")
TRAINING = Path("configs/train.json")
WEIGHTS = Path("models/model.pt")
MODEL_CARD = Path("docs/README.md")


class BadBundle(Exception):
    """The folder is not a bundle that this node can run; the text names the file and the reason."""


Network = Callable[[Tensor], Tensor]
"""Maps float32 (N, 1, slice, row, column), scaled as a card says, to logits (N, label, slice, row, column)."""


@dataclass(frozen=True)
class Model:
    """A trained network and its card. others: further members, whose probabilities are averaged with its own."""

    card: Card
    network: Network
    others: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        if len(self.others) + 1 != self.card.members:
            raise ValueError(f"{len(self.others) + 1} networks where the card speaks of {self.card.members}")

    @property
    def networks(self) -> tuple[Network, ...]:
        """All members."""
        return self.network, *self.others


def default_bundle() -> Path:
    """The bundle that ships."""
    return Path(__file__).parent / "bundles" / "pancreas-3d"


def read_bundle(folder: Path, device: str = "cpu") -> Model:
    """Read a bundle, verify its weights, and put the network on the device. Raises BadBundle."""
    card = _read_card(folder)
    paths = [folder / weights for weights in weights_of(card.members)]
    digest = _digest(paths)
    if digest != card.sha256:
        names = ", ".join(path.name for path in paths)
        raise BadBundle(f"{paths[0].parent}/{names}: SHA-256 is {digest}, {METADATA.name} says {card.sha256}")
    network, *others = (_read_network(path, card).to(device).eval() for path in paths)
    return Model(card, network, tuple(others))


def write_bundle(
    folder: Path,
    card: Card,
    network: nn.Module | Sequence[nn.Module],
    model_card: str,
    origin: Origin = OURS,
    *,
    half: bool = False,
) -> Card:
    """Write a bundle; returns the card with the number of members and the hash of the weights as they stand on disk.

    network: one, or the members of an ensemble, all built by the card's name and arguments.
    model_card: Markdown on what the model was trained on, its measured figures and its limits.
    origin: whose the model is. half: keep the weights in half precision, in half the space; they are used in single.
    """
    members = [network] if isinstance(network, nn.Module) else list(network)
    for part in (METADATA, WEIGHTS, MODEL_CARD):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
    paths = [folder / weights for weights in weights_of(len(members))]
    for member, path in zip(members, paths, strict=True):
        torch.save({name: _stored(tensor, half) for name, tensor in member.state_dict().items()}, path)
    card = replace(card, members=len(members), sha256=_digest(paths))
    _write_json(folder / METADATA, metadata(card, origin))
    for stale in (INFERENCE, TRAINING):
        (folder / stale).unlink(missing_ok=True)
    if card.convention != "nnunet" and not card.flips:
        _write_json(folder / INFERENCE, inference(card))
        _write_json(folder / TRAINING, train(card))
    (folder / MODEL_CARD).write_text(model_card, encoding="utf-8")
    return card


def record_repeatability(folder: Path, percent: float) -> Card:
    """Put a measured repeatability coefficient into a bundle's card; raises BadBundle. Returns the card."""
    card = replace(_read_card(folder), repeatability_percent=percent)
    content = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    _write_json(folder / METADATA, content | {"card": asdict(card)})
    return card


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.half() if half and tensor.is_floating_point() else tensor


@contextmanager
def new_bundle(bundle: Path) -> Iterator[Path]:
    """A folder to write into, which becomes the bundle in one move. Raises BadBundle, also where there is one."""
    if bundle.exists():
        raise BadBundle(f"{bundle}: exists already")
    partial = bundle.with_name(f".{bundle.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with blaming(bundle):
        yield partial
        partial.rename(bundle)


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Say of everything that is wrong with a file in which one it is: raises BadBundle."""
    try:
        yield
    except OSError as error:
        raise BadBundle(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadBundle(f"{path}: not JSON: {error}") from None
    except KeyError as error:
        raise BadBundle(f"{path}: no entry {error}") from None
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError, EOFError) as error:
        raise BadBundle(f"{path}: {(str(error) or type(error).__name__).splitlines()[0]}") from None


def weights_of(members: int) -> list[Path]:
    """Where a bundle keeps the weights of each member: `models/model.pt`, `models/model_1.pt` ..."""
    return [WEIGHTS, *(WEIGHTS.with_stem(f"{WEIGHTS.stem}_{number}") for number in range(1, members))]


def _digest(paths: Iterable[Path]) -> str:
    """The SHA-256 of the files one after another."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise BadBundle(f"{path}: {error.strerror}") from None
    return digest.hexdigest()


def _read_network(weights: Path, card: Card) -> nn.Module:
    try:
        network = build(card.network, card.network_arguments)
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (ValueError, RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise BadBundle(f"{weights}: {str(error).splitlines()[0]}") from None
    return network


def _read_card(folder: Path) -> Card:
    path = folder / METADATA
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))["card"]
        for name in ("spacing_mm", "patch"):
            fields[name] = tuple(fields[name])
        for name in ("window_hu", "scaled_to"):  # bundles of earlier versions scale to 0..1 and do not say so
            if fields.get(name) is not None:
                fields[name] = tuple(fields[name])
        fields["labels"] = {int(channel): name for channel, name in fields["labels"].items()}
        return Card(**fields)
    except OSError as error:
        raise BadBundle(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadBundle(f"{path}: not JSON: {error}") from None
    except KeyError as error:
        raise BadBundle(f"{path}: no entry {error}; this node reads what the model needs from there") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BadBundle(f"{path}: {error}") from None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

"""Read, verify and write a MONAI bundle folder: metadata, weights and model card.

Of a bundle nothing is executed: `configs/metadata.json` is read as data, and the weights as tensors alone, after their
SHA-256 was found right. What is written follows MONAI's layout, with an inference configuration for MONAI's own tools
where the model keeps to MONAI's conventions.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.card import Card
from models.networks import build

METADATA = Path("configs/metadata.json")
INFERENCE = Path("configs/inference.json")
WEIGHTS = Path("models/model.pt")
MODEL_CARD = Path("docs/README.md")
_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


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


def write_bundle(folder: Path, card: Card, network: nn.Module | Sequence[nn.Module], model_card: str) -> Card:
    """Write a bundle; returns the card with the number of members and the hash of the weights as they stand on disk.

    network: one, or the members of an ensemble, all built by the card's name and arguments.
    model_card: Markdown on what the model was trained on, its measured figures and its limits.
    """
    members = [network] if isinstance(network, nn.Module) else list(network)
    for part in (METADATA, WEIGHTS, MODEL_CARD):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
    paths = [folder / weights for weights in weights_of(len(members))]
    for member, path in zip(members, paths, strict=True):
        torch.save({name: tensor.detach().cpu() for name, tensor in member.state_dict().items()}, path)
    card = replace(card, members=len(members), sha256=_digest(paths))
    _write_json(folder / METADATA, _metadata(card))
    if card.convention == "monai":
        _write_json(folder / INFERENCE, _inference(card))
    (folder / MODEL_CARD).write_text(model_card, encoding="utf-8")
    return card


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
        for name in ("spacing_mm", "window_hu", "patch"):
            fields[name] = tuple(fields[name])
        if "scaled_to" in fields:  # bundles of earlier versions scale to 0..1 and do not say so
            fields["scaled_to"] = tuple(fields["scaled_to"])
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


def _metadata(card: Card) -> dict[str, Any]:
    """MONAI's metadata, with the card beside it (https://docs.monai.io/en/stable/mb_specification.html)."""
    channels = {str(channel): name for channel, name in card.labels.items()}
    shape = list(card.patch)
    image = {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1, "spatial_shape": shape}
    image |= {
        "dtype": "float32",
        "value_range": list(card.scaled_to),
        "is_patch_data": True,
        "channel_def": {"0": "image"},
    }
    pred = {"type": "image", "format": "segmentation", "num_channels": len(channels), "spatial_shape": shape}
    pred |= {"dtype": "float32", "value_range": [0, 1], "is_patch_data": True, "channel_def": channels}
    return {
        "schema": _SCHEMA,
        "name": card.name,
        "version": card.version,
        "changelog": {card.version: "see docs/README.md"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"nibabel": "5.3.2", "pytorch-ignite": "0.5.2"},
        "task": f"Segmentation of the {card.labels[card.target]} on CT",
        "description": card.statement,
        "authors": "pancreas-dicomnode project",
        "copyright": "Apache-2.0",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        "card": asdict(card),
    }


def _inference(card: Card) -> dict[str, Any]:
    """A configuration for `python -m monai.bundle run --config_file configs/inference.json --bundle_root .`."""
    low, high = card.window_hu
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "input": "$sorted(glob.glob(@bundle_root + '/input/*.nii.gz'))",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": card.network, **card.network_arguments},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
                {"_target_": "Orientationd", "keys": "image", "axcodes": card.orientation},
                {"_target_": "Spacingd", "keys": "image", "pixdim": list(card.spacing_mm), "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": low,
                    "a_max": high,
                    "b_min": card.scaled_to[0],
                    "b_max": card.scaled_to[1],
                    "clip": True,
                },
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @input]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(card.patch),
            "overlap": card.overlap,
            "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "initialize": ["$@network.load_state_dict(torch.load(@bundle_root + '/models/model.pt', weights_only=True))"],
        "run": ["$@evaluator.run()"],
    }

"""An nnU-Net v2 folder -> a model: plans.json, dataset.json and fold_*/checkpoint_final.pth, as its training leaves it.

Nothing of the folder is executed and no name in it is imported: architectures are built from a short list, and of the
checkpoints tensors, plain containers and numpy's numbers are read (`weights_only=True`); anything else is refused.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from models.bundle import BadBundle, Model, blaming, new_bundle, write_bundle
from models.card import Card
from models.configs import Origin
from models.networks import build
from models.plans import Labels, network_arguments, read_labels, resolve, window

STATEMENT = "Read from an nnU-Net folder, which records neither what the model was trained on nor how well it does."
UNKNOWN = Origin(authors="not known", copyright="not known")
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of an nnU-Net folder is to be run, and how.

    target: name of the label, or region, to measure; capitals do not matter. folds: "0", "1" ... or "all"; none: every
    numbered one there is, as nnU-Net chooses, or else "all". orientation: of the images that the network was trained
    on, as `Card.orientation` but before nnU-Net's own transposition; none: RAS where the plans' reader turns images so,
    else that of an axial DICOM series, because the folder does not say more. mirroring: average over mirrored images
    too, along the axes that training allowed; up to eight times as slow. checkpoint: the file's name in each fold.
    """

    target: str = "pancreas"
    folds: Sequence[str] = ()
    orientation: str | None = None
    mirroring: bool = False
    checkpoint: str = "checkpoint_final.pth"


def read_nnunet(folder: Path, choice: Choice | None = None, device: str = "cpu") -> Model:
    """Read an nnU-Net v2 folder and put its networks on the device. Raises BadBundle.

    The card's hash is of plans.json, dataset.json and the checkpoints used, one after another.
    """
    card, network = _read(folder, choice or Choice())
    return Model(card, network.to(device).eval())


def import_nnunet(folder: Path, bundle: Path, choice: Choice | None = None) -> Card:
    """Write an nnU-Net v2 folder as a bundle, in one move; returns the card. Raises BadBundle, also if there is one."""
    with new_bundle(bundle) as partial:
        card, network = _read(folder, choice or Choice())
        return write_bundle(partial, card, network, _model_card(card, folder.resolve().name), UNKNOWN)


def _model_card(card: Card, source: str) -> str:
    channels = ", ".join(f"{channel} {name}" for channel, name in card.labels.items())
    lines = [
        f"Imported from the nnU-Net v2 folder `{source}`; the SHA-256 of its plans.json, dataset.json and checkpoints",
        f"one after another is {card.sha256}.",
        "",
        f"- Measures: {card.labels[card.target]}",
        f"- Channels: {channels}",
        f"- Orientation of the training images, as taken: {card.orientation}",
        f"- Networks: {card.network_arguments['members']} x {card.network_arguments['architecture']}",
    ]
    return "\n".join([f"# {card.name}", "", card.statement, "", *lines, ""])


def _read(folder: Path, choice: Choice) -> tuple[Card, nn.Module]:
    paths = [folder / "plans.json", folder / "dataset.json", *_checkpoint_paths(folder, choice)]
    digest = _digest(paths)
    plans_path, dataset_path, *checkpoint_paths = paths
    checkpoints = [_read_checkpoint(path) for path in checkpoint_paths]
    with blaming(dataset_path):
        labels = read_labels(_read_json(dataset_path), choice.target)
    with blaming(checkpoint_paths[0]):
        configuration = str(checkpoints[0]["init_args"]["configuration"])
        mirror_axes = [int(axis) for axis in checkpoints[0].get("inference_allowed_mirroring_axes") or ()]
    with blaming(plans_path):
        plans = _read_json(plans_path)
        card = _card(plans, configuration, labels, choice)
        folds = {"members": len(checkpoints), "mirror_axes": mirror_axes if choice.mirroring else []}
        card = replace(card, sha256=digest, version=digest[:12], network_arguments=dict(card.network_arguments) | folds)
        with torch.device("meta"):  # shapes alone: absurd ones cost nothing, and weights are not held twice
            network = build(card.network, card.network_arguments)
    members = network.get_submodule("members").children()
    for member, path, checkpoint in zip(members, checkpoint_paths, checkpoints, strict=True):
        with blaming(path):
            _load(member, checkpoint["network_weights"])
    return card, network


def _checkpoint_paths(folder: Path, choice: Choice) -> list[Path]:
    folds = list(choice.folds)
    if not folds:
        there = {path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{choice.checkpoint}")}
        folds = sorted(there - {"all"}, key=lambda fold: (len(fold), fold)) or sorted(there)
    if not folds:
        raise BadBundle(f"{folder}: no fold_*/{choice.checkpoint}")
    return [folder / f"fold_{fold}" / choice.checkpoint for fold in folds]


def _card(plans: Mapping[str, Any], name: str, labels: Labels, choice: Choice) -> Card:
    settings = resolve(plans["configurations"], name)
    transpose = [int(axis) for axis in plans["transpose_forward"]]
    if sorted(transpose) != [0, 1, 2]:
        raise ValueError(f"transpose_forward {transpose} does not order three axes")
    turned = str(plans.get("image_reader_writer")).endswith("WithReorient")
    orientation = choice.orientation or ("SAR" if turned else "SPL")
    window_hu, scaled_to = window(plans, settings)
    return Card(
        name=f"{plans['dataset_name']} {name}"[:64],
        version="",
        sha256="",
        orientation="".join(orientation[axis] for axis in transpose),
        spacing_mm=_three(settings["spacing"], float),
        window_hu=window_hu,
        scaled_to=scaled_to,
        patch=_three(settings["patch_size"], int),
        overlap=0.5,
        labels=labels.names,
        target=labels.target,
        statement=STATEMENT,
        network="Folds",
        network_arguments=network_arguments(settings, labels.heads) | {"channel": labels.channel},
        convention="nnunet",
    )


def _three(values: Sequence[Any], kind: Callable[[Any], _Number]) -> tuple[_Number, _Number, _Number]:
    first, second, third = (kind(value) for value in values)
    return first, second, third


def _load(network: nn.Module, weights: Mapping[str, Any]) -> None:
    """Put a checkpoint's weights into a network on `meta`; raises ValueError where their names or shapes differ.

    nnU-Net's modules know the same parameter by several names, of which one is read, and hold heads for training alone.
    """
    wanted = network.state_dict()
    given = {
        name: tensor
        for name, tensor in ((name.removeprefix("module."), tensor) for name, tensor in weights.items())
        if not (".all_modules." in name or name.startswith("decoder.encoder."))
        and (name in wanted or not name.startswith("decoder.seg_layers."))
    }
    for name in [*(wanted.keys() - given.keys()), *(given.keys() - wanted.keys())]:
        kind = "lacks" if name in wanted else "has besides the architecture of plans.json"
        raise ValueError(f"network_weights {kind} {name}")
    for name, tensor in given.items():
        if not isinstance(tensor, torch.Tensor) or tensor.shape != wanted[name].shape:
            shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise ValueError(f"{name} is {shape}, the architecture of plans.json needs {tuple(wanted[name].shape)}")
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in given.items()}
    network.load_state_dict(copies, assign=True)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, memory-mapped: what of it is never used (the optimiser's state, half of the file) is never read."""
    with blaming(path), safe_globals(numpy_numbers()):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            refused = ", ".join(sorted(get_unsafe_globals_in_checkpoint(path))) or "what cannot be read"
            raise ValueError(f"holds more than tensors and numbers: {refused}") from None
        if not isinstance(content, dict):
            raise ValueError("not a checkpoint of nnU-Net")
        return content


def numpy_numbers() -> list[Any]:
    """What numpy's numbers are pickled with, in numpy 2 and before: nnU-Net logs losses and scores as such."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]
    return [np.dtype, *kinds, (scalar, "numpy._core.multiarray.scalar"), (scalar, "numpy.core.multiarray.scalar")]


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with blaming(path), path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content

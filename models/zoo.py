"""A bundle of MONAI's Model Zoo -> a bundle of ours: metadata, inference configuration and weights, read as data.

Nothing of the folder is executed: see `models.expressions`. What the node's pipeline does not do as the configuration
says is refused by its name (the configurations that were read: docs/models.md).
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from monai.networks import nets
from torch import nn
from torch.serialization import safe_globals

from models.bundle import METADATA, WEIGHTS, BadBundle, blaming, new_bundle, write_bundle
from models.card import Card
from models.configs import Origin
from models.expressions import Configuration, class_name
from models.networks import NETWORKS, build
from models.nnunet import numpy_numbers

STATEMENT = "Imported from a MONAI bundle and not judged here."
_CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")
_READING = {"LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "CastToTyped", "ToTensord"}
_ORDERS = (
    ("Orientationd", "Spacingd", "ScaleIntensityRanged"),
    ("Orientationd", "Spacingd", "NormalizeIntensityd", "ScaleIntensityd"),
)
_SETTINGS: dict[str, dict[str, Any]] = {
    "Orientationd": {},
    "Spacingd": {"mode": "bilinear"},
    "ScaleIntensityRanged": {"clip": True},
    "NormalizeIntensityd": {"nonzero": True},
    "ScaleIntensityd": {},
}
"""What must be set so, of what is not on the card."""
_ARGUMENTS = {"keys", "axcodes", "pixdim", "a_min", "a_max", "b_min", "b_max", "minv", "maxv"}
_WINDOWS = {"roi_size", "overlap", "mode", "padding_mode"}
_RUNNING = {"_target_", "sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh"}
_LICENCES = ("LICENSE*", "docs/*license*")
_Number = TypeVar("_Number", int, float)


def import_zoo(folder: Path, bundle: Path, target: str = "pancreas") -> Card:
    """Write a Model Zoo bundle as a bundle of ours, in one move; returns the card.

    target: the channel to measure, by its name in the metadata; capitals do not matter. Raises BadBundle, also if there
    is a bundle already.
    """
    with new_bundle(bundle) as partial_bundle:
        metadata = _read_metadata(folder)
        path, configuration = _read_configuration(folder)
        with blaming(folder / METADATA):
            labels, channel = _labels(metadata, target)
        with blaming(path):
            card = _card(metadata, configuration, labels, channel)
            weights = folder / _weights(configuration)
        with blaming(weights):
            network = _network(card, weights)
        origin = Origin(str(metadata.get("authors") or "not known"), str(metadata.get("copyright") or "not known"))
        card = write_bundle(partial_bundle, card, network, _model_card(card, metadata, weights), origin)
        for pattern in _LICENCES:
            for licence in folder.glob(pattern):
                shutil.copyfile(licence, partial_bundle / licence.relative_to(folder))
        return card


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    with blaming(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        return content


def _read_configuration(folder: Path) -> tuple[Path, Configuration]:
    """The inference configuration; wherever its author's folder was, it is about this one."""
    path = next((path for name in _CONFIGURATIONS if (path := folder / "configs" / name).is_file()), None)
    if path is None:
        raise BadBundle(f"{folder}/configs: no {', '.join(_CONFIGURATIONS)}")
    with blaming(path):
        text = path.read_text(encoding="utf-8")
        try:
            content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"not YAML: {error}") from None
        if not isinstance(content, dict):
            raise ValueError("not a table")
        calls: dict[str, Callable[[Any], Any]] = {"torch.load": partial(_read_codes, folder), "torch.from_numpy": list}
        return path, Configuration(content | {"bundle_root": "."}, calls)


def _labels(metadata: Mapping[str, Any], target: str) -> tuple[dict[int, str], int]:
    formats = metadata["network_data_format"]
    inputs, prediction = formats["inputs"]["image"], formats["outputs"]["pred"]
    if inputs["num_channels"] != 1:
        raise ValueError(f"needs {inputs['num_channels']} images at once")
    labels = {int(channel): str(name) for channel, name in prediction["channel_def"].items()}
    if sorted(labels) != list(range(prediction["num_channels"])):
        raise ValueError(f"channel_def names {len(labels)} channels, num_channels is {prediction['num_channels']}")
    for channel, name in labels.items():
        if channel and name.casefold() == target.casefold():
            return labels, channel
    raise ValueError(f"no channel {target!r} among {', '.join(list(labels.values())[1:])}")


def _card(metadata: Mapping[str, Any], configuration: Configuration, labels: dict[int, str], target: int) -> Card:
    name, arguments = _architecture(configuration)
    channels = arguments.get("out_channels", arguments.get("num_classes"))
    if channels != len(labels):
        raise ValueError(f"the network has {channels} channels, the metadata name {len(labels)}")
    steps = _steps(configuration)
    _check_choice(configuration)
    ranged = "NormalizeIntensityd" in steps
    scaling = steps["ScaleIntensityd" if ranged else "ScaleIntensityRanged"]
    return Card(
        name=str(metadata["name"] if "name" in metadata else metadata["task"])[:64],
        version=str(metadata["version"]),
        sha256="",
        orientation=str(steps["Orientationd"]["axcodes"]),
        spacing_mm=_three(steps["Spacingd"]["pixdim"], float),
        window_hu=None if ranged else (float(scaling["a_min"]), float(scaling["a_max"])),
        scaled_to=(float(scaling["minv" if ranged else "b_min"]), float(scaling["maxv" if ranged else "b_max"])),
        labels=labels,
        target=target,
        statement=f"{STATEMENT} Its authors: {metadata.get('intended_use', 'nothing on its use.')}",
        network=name,
        network_arguments=arguments,
        convention="spacingd",
        **_inferer(configuration),
    )


def _architecture(configuration: Configuration) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the network."""
    definition = configuration.find("network_def")
    if not isinstance(definition, dict):
        raise ValueError(f"network_def would have to be executed: {definition}")
    name = class_name(definition)
    known = [name for name in NETWORKS if hasattr(nets, name)]
    if definition["_target_"] not in (name, f"monai.networks.nets.{name}") or name not in known:
        raise ValueError(f"network_def: unknown network {definition['_target_']}; known are {', '.join(known)}")
    arguments = _arguments(configuration, "network_def")
    arguments.pop("img_size", None)  # what SwinUNETR was once told of its windows; it changes no weight
    return name, arguments


def _arguments(configuration: Configuration, name: str) -> dict[str, Any]:
    """What a component is made with, and what it is made of; not on which device."""
    arguments = {}
    for key in configuration.find(name):
        if key == "device" or key.startswith("_"):
            continue
        part = f"{name}#{key}"
        component = isinstance(configuration.find(part), dict)
        arguments[key] = _arguments(configuration, part) if component else configuration.value(part)
    return arguments


def _steps(configuration: Configuration) -> dict[str, dict[str, Any]]:
    """What is done to the image between its file and the network, by name, in order."""
    steps = {}
    for at in range(len(configuration.find("preprocessing#transforms"))):
        entry = configuration.find(f"preprocessing#transforms#{at}")
        if class_name(entry) not in _READING and entry.get("_disabled_") is not True:
            steps[class_name(entry)] = _arguments(configuration, f"preprocessing#transforms#{at}")
    if tuple(steps) not in _ORDERS:
        known = ", or ".join(" > ".join(order) for order in _ORDERS)
        raise ValueError(f"preprocessing is {' > '.join(steps)}; known are {known}")
    steps["Spacingd"].setdefault("mode", "bilinear")
    for name, arguments in steps.items():
        settings = {key: value for key, value in arguments.items() if key not in _ARGUMENTS}
        if settings != _SETTINGS[name]:
            raise ValueError(f"preprocessing: {name} with {settings}; known is {_SETTINGS[name]}")
    return steps


def _inferer(configuration: Configuration) -> dict[str, Any]:
    """The card's fields on windows."""
    inferer = configuration.find("inferer")
    if not isinstance(inferer, dict) or class_name(inferer) != "SlidingWindowInferer":
        raise ValueError("inferer is not a SlidingWindowInferer")
    if strange := inferer.keys() - _WINDOWS - _RUNNING:
        raise ValueError(f"inferer with {', '.join(sorted(strange))}")
    windows = {key: configuration.value(f"inferer#{key}") for key in inferer.keys() & _WINDOWS}
    return {
        "patch": _three(windows["roi_size"], int),
        "overlap": float(windows.get("overlap", 0.25)),
        "blending": windows.get("mode", "constant"),
        "padding": windows.get("padding_mode", "constant"),
    }


def _check_choice(configuration: Configuration) -> None:
    """The label of a voxel must be the most probable one."""
    transforms = configuration.find("postprocessing#transforms")
    argmax = any(class_name(entry) == "AsDiscreted" and entry.get("argmax") is True for entry in transforms)
    if not argmax or any(entry.get("sigmoid") for entry in transforms):
        raise ValueError("postprocessing does not take the most probable label (softmax, argmax)")


def _three(values: Sequence[Any], kind: Callable[[Any], _Number]) -> tuple[_Number, _Number, _Number]:
    first, second, third = (kind(value) for value in values)
    return first, second, third


def _weights(configuration: Configuration) -> Path:
    """The file that the first CheckpointLoader reads, as a path inside the folder."""
    for loader in configuration.components("CheckpointLoader"):
        return _inside(configuration.read(loader["load_path"], "CheckpointLoader#load_path"))
    return WEIGHTS


def _inside(path: str) -> Path:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{path} is outside of the bundle")
    return Path(path)


def _network(card: Card, weights: Path) -> nn.Module:
    if weights.suffix == ".ts" or (not weights.exists() and weights.with_suffix(".ts").exists()):
        raise ValueError("TorchScript holds code, not weights alone; only a state dictionary is read")
    network = build(card.network, card.network_arguments)
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"not weights alone: {str(error).splitlines()[0]}") from None
    try:
        network.load_state_dict(content.get("model", content))
    except RuntimeError as error:
        raise ValueError(f"does not fit the configuration's network: {' '.join(str(error).split())[:300]}") from None
    return network


def _read_codes(folder: Path, path: str) -> dict[str, Any]:
    """What torch.load reads of an architecture that DiNTS found: arrays of numbers, here as lists."""
    reconstruct: Any = np.zeros(0).__reduce__()[0]
    names: list[Any] = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    with blaming(folder / _inside(path)), safe_globals([np.ndarray, *names, *numpy_numbers()]):
        try:
            content = torch.load(folder / path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(f"not numbers alone: {str(error).splitlines()[0]}") from None
        return {name: array.tolist() for name, array in content.items() if isinstance(array, np.ndarray | torch.Tensor)}


def _model_card(card: Card, metadata: Mapping[str, Any], source: Path) -> str:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    says = {
        "Task": metadata.get("task"),
        "Description": metadata.get("description"),
        "Authors": metadata.get("authors"),
        "Copyright": metadata.get("copyright"),
        "Trained on": metadata.get("data_source"),
        "Figures": metadata.get("eval_metrics"),
        "Intended use": metadata.get("intended_use"),
    }
    lines = [
        f"Imported from the MONAI bundle `{source.resolve().parents[1].name}` {card.version}; the SHA-256 of its",
        f"`{source.parent.name}/{source.name}` is {digest}.",
        "",
        f"- Measures: channel {card.target}, {card.labels[card.target]}, of {len(card.labels)}",
        "",
        "Its metadata say:",
        "",
        *(f"- {key}: {value}" for key, value in says.items() if value),
        *(f"- {reference}" for reference in metadata.get("references", [])),
    ]
    return "\n".join([f"# {card.name}", "", card.statement, "", *lines, ""])

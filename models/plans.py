"""What nnU-Net v2's plans.json and dataset.json mean for a model: labels, intensities and the architecture.

Every function raises KeyError, TypeError, ValueError or AttributeError where the files say what cannot be run here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.unets import ACTIVATIONS, ARCHITECTURES

_RESAMPLING = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet")
_INERT = ("n_stages", "deep_supervision", "dropout_op", "dropout_op_kwargs")
"""Arguments of an architecture that follow from the others or change nothing at inference."""
_ARGUMENTS = {
    "features_per_stage": "features",
    "kernel_sizes": "kernels",
    "strides": "strides",
    "n_conv_per_stage": "blocks",
    "n_blocks_per_stage": "blocks",
    "n_conv_per_stage_decoder": "decoder_blocks",
    "conv_bias": "bias",
    "norm_op_kwargs": "norm",
    "nonlin_kwargs": "activation_arguments",
}
"""nnU-Net's names of arguments and those of `models.unets.Plan`."""


@dataclass(frozen=True)
class Labels:
    """What the channels of a trained network are.

    names: channel -> name; 0 is the background. target: the channel to measure. heads: channels of the network itself.
    channel: which of these stands alone against a background of 0, where they are regions, which may overlap; or None.
    """

    names: Mapping[int, str]
    target: int
    heads: int
    channel: int | None = None


def read_labels(dataset: Mapping[str, Any], target: str) -> Labels:
    """Labels of a dataset.json of single-channel images; the target by its name, whatever its capitals."""
    images = dataset["channel_names"] if "channel_names" in dataset else dataset["modality"]
    if len(images) != 1:
        raise ValueError(f"the network needs {len(images)} images at once: {', '.join(map(str, images.values()))}")
    labels = {name: label for name, label in dataset["labels"].items() if name != "ignore"}
    regions = any(isinstance(label, list) and len(label) > 1 for label in labels.values())
    foreground = [name for name, label in labels.items() if label not in (0, "0", [0])]
    found = [name for name in foreground if name.casefold() == target.casefold()]
    if len(found) != 1:
        raise ValueError(f"no label {target!r} among {', '.join(foreground)}")
    if regions:
        return Labels({0: "background", 1: found[0]}, 1, len(foreground), foreground.index(found[0]))
    # Channels follow the values, which need not be consecutive.
    ordered = sorted((int(label[0] if isinstance(label, list) else label), name) for name, label in labels.items())
    names = {channel: name for channel, (_, name) in enumerate(ordered)}
    if ordered[0][0] != 0 or len({value for value, _ in ordered}) != len(ordered):
        raise ValueError("labels: a background of 0, and no value twice, are needed")
    return Labels(names, next(channel for channel, name in names.items() if name == found[0]), len(names))


def resolve(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration, with what it inherits; only what one network with a single 3-D image as its input can run."""
    settings: dict[str, Any] = {}
    visited: list[str] = []
    parent: str | None = name
    while parent is not None:
        if parent in visited:
            raise ValueError(f"configuration {name} inherits from itself")
        visited.append(parent)
        settings = configurations[parent] | settings
        parent = configurations[parent].get("inherits_from")
    if len(settings["patch_size"]) != 3:
        raise ValueError(f"configuration {name} is not three-dimensional")
    if settings.get("previous_stage"):
        raise ValueError(f"configuration {name} needs the result of {settings['previous_stage']}: no cascades here")
    if settings.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise ValueError(f"configuration {name} needs {settings['preprocessor_name']}")
    if settings.get("resampling_fn_data", _RESAMPLING[0]) not in _RESAMPLING:
        raise ValueError(f"configuration {name} resamples by {settings['resampling_fn_data']}")
    return settings


def window(plans: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The window in HU and what its ends become: CTNormalization clips to percentiles, subtracts a mean and divides."""
    if settings["normalization_schemes"] != ["CTNormalization"]:
        raise ValueError(f"images are normalised by {', '.join(settings['normalization_schemes'])}, not for CT")
    old, new = (f"foreground_intensity_properties_{suffix}" for suffix in ("by_modality", "per_channel"))
    found = plans[new if new in plans or old not in plans else old]["0"]
    low, high = float(found["percentile_00_5"]), float(found["percentile_99_5"])
    mean, deviation = float(found["mean"]), max(float(found["std"]), 1e-8)
    return (low, high), ((low - mean) / deviation, (high - mean) / deviation)


def network_arguments(settings: Mapping[str, Any], heads: int) -> dict[str, Any]:
    """Arguments of `models.unets.Folds` for one member, of a configuration in the present or the first form."""
    architecture = settings["architecture"] if "architecture" in settings else _first_form(settings)
    name = str(architecture["network_class_name"]).rpartition(".")[2]
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {name}; known are {', '.join(ARCHITECTURES)}")
    given = dict(architecture["arch_kwargs"])
    stages = int(given["n_stages"])
    operations = {key: str(given.pop(key, None)).rpartition(".")[2] for key in ("conv_op", "norm_op", "nonlin")}
    if (operations["conv_op"], operations["norm_op"]) != ("Conv3d", "InstanceNorm3d"):
        raise ValueError(f"{name} of {operations['conv_op']} with {operations['norm_op']}")
    if operations["nonlin"] not in ACTIVATIONS:
        raise ValueError(f"{name} with {operations['nonlin']}; known are {', '.join(ACTIVATIONS)}")
    for key in [key for key, value in given.items() if key in _INERT or value in (None, False)]:
        if key not in _ARGUMENTS:
            del given[key]
    if surplus := given.keys() - _ARGUMENTS.keys():
        raise ValueError(f"{name} with {', '.join(sorted(surplus))}")
    arguments = {_ARGUMENTS[key]: value for key, value in given.items()}
    arguments |= {key: arguments.get(key) or {} for key in ("norm", "activation_arguments")}
    arguments |= {key: _per_stage(arguments[key], stages) for key in ("features", "blocks")}
    arguments |= {
        key: [_per_axis(value) for value in _per_stage(arguments[key], stages)] for key in ("kernels", "strides")
    }
    arguments["decoder_blocks"] = _per_stage(arguments["decoder_blocks"], stages - 1)
    arguments |= {"input_channels": 1, "num_classes": heads, "activation": operations["nonlin"]}
    return {"architecture": name, "arguments": arguments}


def _first_form(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture as the first releases of nnU-Net v2 wrote it, TotalSegmentator's among them."""
    residual = settings["UNet_class_name"] == "ResidualEncoderUNet"
    encoder, widest = settings["n_conv_per_stage_encoder"], int(settings["unet_max_num_features"])
    arguments = {
        "n_stages": len(encoder),
        "features_per_stage": [
            min(int(settings["UNet_base_num_features"]) * 2**i, widest) for i in range(len(encoder))
        ],
        "conv_op": "Conv3d",
        "kernel_sizes": settings["conv_kernel_sizes"],
        "strides": settings["pool_op_kernel_sizes"],
        "n_blocks_per_stage" if residual else "n_conv_per_stage": encoder,
        "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {"network_class_name": settings["UNet_class_name"], "arch_kwargs": arguments}


def _per_stage(value: Any, stages: int) -> list[Any]:
    return list(value) if isinstance(value, Sequence) else [value] * stages


def _per_axis(value: Any) -> list[int]:
    return [int(axis) for axis in value] if isinstance(value, Sequence) else [int(value)] * 3

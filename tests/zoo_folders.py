"""Bundles in the layout of MONAI's Model Zoo: with the keys of the real ones, tiny, of weights anyone can make again.

wholebody: wholeBody_ct_segmentation; btcv: swin_unetr_btcv_segmentation; dints: multi_organ_segmentation and
pancreas_ct_dints_segmentation (github.com/Project-MONAI/model-zoo).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.networks.nets import DiNTS, SegResNet, SwinUNETR, TopologyInstance
from torch import nn

from tests.monai_bundles import draw

Edit = Callable[[dict[str, Any], dict[str, Any]], object]
LABELS = {"0": "background", "1": "spleen", "2": "Pancreas"}
IMAGE_KEY = {"keys": "@image_key"}
CODES = {
    "node_a": np.ones((3, 2)),
    "arch_code_a": np.array([[1, 1, 0, 1], [1, 0, 1, 1]]),
    "arch_code_c": np.array([[0, 1, 0, 1], [1, 1, 0, 0]]),
}
"""Of two blocks in two depths."""


def write_zoo(folder: Path, layout: str, edit: Edit = lambda metadata, configuration: None) -> Path:
    """Write a bundle in one of `LAYOUTS`; edit: what is to be changed of its metadata and configuration."""
    write, seed = LAYOUTS[layout]
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True)
    torch.save(CODES, folder / "models" / "search_code_18590.pt")
    torch.manual_seed(seed)
    configuration, network = write()
    metadata = _metadata(layout)
    edit(metadata, configuration)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    if layout == "dints":
        (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    else:
        (folder / "configs" / "inference.json").write_text(json.dumps(configuration))
    (folder / "LICENSE").write_text("A licence.\n")
    draw(network, seed)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def _metadata(layout: str) -> dict[str, Any]:
    tensor = {"type": "image", "spatial_shape": [32, 32, 32], "dtype": "float32", "is_patch_data": True}
    image = {"format": "hounsfield", "modality": "CT", "num_channels": 1, "channel_def": {"0": "image"}}
    return {
        "version": "0.1.9",
        "monai_version": "1.2.0",
        "task": f"{layout} segmentation",
        "authors": "MONAI team",
        "copyright": "Copyright (c) MONAI Consortium",
        "data_source": "Made up",
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "references": ["A paper."],
        "network_data_format": {
            "inputs": {"image": tensor | image | {"value_range": [0, 1]}},
            "outputs": {"pred": tensor | {"format": "segmentation", "num_channels": 3, "channel_def": dict(LABELS)}},
        },
    }


def _configuration(scaling: list[dict[str, Any]], pixdim: object, inferer: dict[str, Any]) -> dict[str, Any]:
    """What the real ones share."""
    return {
        "imports": ["$import glob", "$import numpy", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "output_ext": ".nii.gz",
        "output_dtype": "$numpy.float32",
        "output_postfix": "trans",
        "separate_folder": True,
        "dataset_dir": "/workspace/data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **IMAGE_KEY},
                {"_target_": "EnsureChannelFirstd", **IMAGE_KEY},
                {"_target_": "Orientationd", **IMAGE_KEY, "axcodes": "RAS"},
                {"_target_": "Spacingd", **IMAGE_KEY, "pixdim": pixdim, "mode": "bilinear"},
                *scaling,
                {"_target_": "EnsureTyped", **IMAGE_KEY},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "sw_batch_size": 4, **inferer},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "@image_key",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_ext": "@output_ext",
                    "output_dtype": "@output_dtype",
                    "output_postfix": "@output_postfix",
                    "separate_folder": "@separate_folder",
                },
            ],
        },
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": True,
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)", "$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }


def _window(low: int, high: int) -> list[dict[str, Any]]:
    scale = {"a_min": low, "a_max": high, "b_min": 0.0, "b_max": 1.0, "clip": True}
    return [{"_target_": "ScaleIntensityRanged", **IMAGE_KEY, **scale}]


def _wholebody() -> tuple[dict[str, Any], nn.Module]:
    arguments: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "init_filters": 8,
        "blocks_down": [1, 1],
        "blocks_up": [1],
        "dropout_prob": 0.2,
    }
    scaling = [
        {"_target_": "NormalizeIntensityd", **IMAGE_KEY, "nonzero": True},
        {"_target_": "ScaleIntensityd", **IMAGE_KEY, "minv": -1.0, "maxv": 1.0},
    ]
    inferer = {
        "sw_batch_size": "@displayable_configs#sw_batch_size",
        "overlap": "@displayable_configs#sw_overlap",
        "padding_mode": "replicate",
        "mode": "gaussian",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    }
    content = _configuration(scaling, "@pixdim", inferer) | {
        "displayable_configs": {"highres": True, "sw_overlap": 0.25, "sw_batch_size": 1},
        "pixdim": "$[1.5, 1.5, 2.5] if @displayable_configs#highres else [3.0, 3.0, 3.0]",
        "modelname": "$'model.pt' if @displayable_configs#highres else 'model_lowres.pt'",
        "network_def": {"_target_": "SegResNet", **arguments},
    }
    content["checkpointloader"]["load_path"] = "$@bundle_root + '/models/' + @modelname"
    softmax, invert, argmax, save = content["postprocessing"]["transforms"]
    content["postprocessing"]["transforms"] = [softmax, argmax, invert | {"nearest_interp": True}, save]
    return content, SegResNet(**arguments)


def _btcv() -> tuple[dict[str, Any], nn.Module]:
    arguments: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "feature_size": 12,
        "use_checkpoint": False,
    }
    content = _configuration(_window(-175, 250), [1.5, 1.7, 2.0], {"overlap": 0.5, "roi_size": [64, 64, 64]})
    content |= {
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "load_pretrain": True,
        "network_def": {"_target_": "SwinUNETR", "img_size": 96, **arguments},
    }
    content["checkpointloader"]["load_path"] = "$@checkpoint"
    return content, SwinUNETR(**arguments)


def _dints() -> tuple[dict[str, Any], nn.Module]:
    space = {"channel_mul": 0.25, "num_blocks": 2, "num_depths": 2, "use_downsample": True}
    content = _configuration(_window(-500, 500), [2, 2, 2], {"overlap": 0.625})
    content |= {
        "input_channels": 1,
        "output_classes": 3,
        "arch_ckpt_path": "$@bundle_root + '/models/search_code_18590.pt'",
        "arch_ckpt": "$torch.load(@arch_ckpt_path, map_location=torch.device('cuda'))",
        "dints_space": {
            "_target_": "monai.networks.nets.TopologyInstance",
            **space,
            "arch_code": ["$@arch_ckpt['arch_code_a']", "$@arch_ckpt['arch_code_c']"],
            "device": "$torch.device('cuda')",
        },
        "network_def": {
            "_target_": "monai.networks.nets.DiNTS",
            "dints_space": "@dints_space",
            "in_channels": "@input_channels",
            "num_classes": "@output_classes",
            "use_downsample": True,
            "node_a": "$torch.from_numpy(@arch_ckpt['node_a'])",
        },
    }
    topology = TopologyInstance(**space, arch_code=[CODES["arch_code_a"], CODES["arch_code_c"]])
    return content, DiNTS(topology, 1, 3, node_a=torch.from_numpy(CODES["node_a"]))


LAYOUTS: dict[str, tuple[Callable[[], tuple[dict[str, Any], nn.Module]], int]] = {
    "wholebody": (_wholebody, 0),
    "btcv": (_btcv, 1),
    "dints": (_dints, 0),
}
"""What writes each, and a seed of weights that find something, but not everything."""

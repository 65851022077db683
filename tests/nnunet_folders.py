"""nnU-Net v2 folders as its training leaves them, tiny and of weights that anyone can make again.

Run by hand, with nnunetv2 installed (2.8.1 made what is stored), this writes what nnU-Net's own predictor says of them:

    python -m tests.nnunet_folders
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from highdicom import VolumeGeometry
from numpy.typing import NDArray

from models.unets import ARCHITECTURES
from pipeline.volume import Grid, Volume

EXPECTED = Path(__file__).parent / "expected" / "nnunet.npz"
LABELS: dict[str, Any] = {"background": 0, "liver": 1, "Pancreas": 2, "spleen": 3}
SPACING_MM = [2.5, 1.6, 1.5]
PATCH = [16, 32, 32]
SHAPE = (37, 60, 51)
INTENSITY = {"mean": 60.0, "std": 90.0, "percentile_00_5": -120.0, "percentile_99_5": 290.0}
STAGES: dict[str, Any] = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
    "n_conv_per_stage_decoder": [1, 2],
}
BLOCKS = {"PlainConvUNet": {"n_conv_per_stage": [2, 1, 2]}, "ResidualEncoderUNet": {"n_blocks_per_stage": [1, 2, 1]}}
SEEDS = {"PlainConvUNet": [11, 0], "ResidualEncoderUNet": [40, 65]}
"""Of weights that find the pancreas in the body, not in the air around it."""
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "mirrored": {},
    "residual": {"architecture": "ResidualEncoderUNet"},
    "two folds": {"folds": 2},
    "transposed": {"transpose": [2, 0, 1]},
    "other spacing": {"spacing_mm": [3.1, 1.3, 1.9]},
    "thick slices": {"spacing_mm": [5.0, 1.2, 1.2]},
}
"""Arguments of `write_folder`; each is a comparison with nnU-Net's predictor, which mirrors the images of one."""


def volume() -> Volume:
    """Smooth shapes in a round body of 37 x 60 x 51 voxels, its axes as nnU-Net's reader leaves them."""
    z, y, x = np.indices(SHAPE, dtype=np.float64)
    waves = np.sin(z / 8) * np.cos(y / 11) + np.sin((x + y) / 14) * np.cos((z - x) / 12)
    noise = np.random.RandomState(7).standard_normal(SHAPE)
    hounsfield = np.round(40 + 120 * waves + 2 * noise).astype(np.int16)
    hounsfield[(z / 18 - 1) ** 2 + (y / 30 - 1) ** 2 + (x / 25 - 1) ** 2 > 0.9] = -1000
    hounsfield[hounsfield == 0] = 1  # nnU-Net crops a border of exact zeros
    geometry = VolumeGeometry.from_components(
        SHAPE,
        spacing=SPACING_MM,
        position=(-40.0, -48.0, 12.0),
        direction=np.eye(3)[::-1].T,
        coordinate_system="PATIENT",
    )
    return Volume(hounsfield, Grid(geometry))


def write_folder(
    folder: Path,
    *,
    architecture: str = "PlainConvUNet",
    folds: int = 1,
    transpose: list[int] | None = None,
    spacing_mm: list[float] | None = None,
    edit: Callable[[dict[str, Any], dict[str, Any]], object] = lambda plans, dataset: None,
) -> Path:
    """Write a folder; spacing_mm: in the reader's order of axes. edit: what is to be changed of plans and dataset."""
    order = transpose or [0, 1, 2]
    spacing = [(spacing_mm or SPACING_MM)[axis] for axis in order]
    stages = STAGES | BLOCKS[architecture]
    name = f"dynamic_network_architectures.architectures.unet.{architecture}"
    needs_import = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    interpolation = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    configuration = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": PATCH,
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": interpolation | {"order": 3},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": interpolation | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": interpolation | {"order": 1},
        "architecture": {"network_class_name": name, "arch_kwargs": stages, "_kw_requires_import": needs_import},
    }
    plans = {
        "dataset_name": "Dataset901_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": order,
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "label_manager": "LabelManager",
        "configurations": {"3d_fullres": configuration, "3d_again": {"inherits_from": "3d_fullres"}},
        "foreground_intensity_properties_per_channel": {"0": INTENSITY},
    }
    dataset: dict[str, Any] = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".nii.gz"}
    plans, dataset = deepcopy((plans, dataset))
    edit(plans, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold in range(folds):
        write_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth", architecture, seed=SEEDS[architecture][fold])
    return folder


def in_first_form(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    """The plans of the first releases of nnU-Net v2, TotalSegmentator's among them; an edit for `write_folder`."""
    settings = plans["configurations"]["3d_fullres"]
    stages = settings.pop("architecture")["arch_kwargs"]
    settings.update(
        UNet_class_name="PlainConvUNet",
        UNet_base_num_features=4,
        unet_max_num_features=8,
        n_conv_per_stage_encoder=stages["n_conv_per_stage"],
        n_conv_per_stage_decoder=stages["n_conv_per_stage_decoder"],
        conv_kernel_sizes=stages["kernel_sizes"],
        pool_op_kernel_sizes=stages["strides"],
    )
    plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")
    dataset["modality"] = dataset.pop("channel_names")


def write_checkpoint(
    path: Path, architecture: str, *, seed: int, stages: Mapping[str, Any] = STAGES, labels: int = 4, **changes: Any
) -> None:
    """A checkpoint as nnU-Net's trainer saves it: weights by all their names, and much that inference does not need."""
    random = np.random.RandomState(seed)
    names = BLOCKS[architecture] | stages
    network = ARCHITECTURES[architecture](
        input_channels=1,
        num_classes=labels,
        features=names["features_per_stage"],
        kernels=names["kernel_sizes"],
        strides=names["strides"],
        blocks=names[next(iter(BLOCKS[architecture]))],
        decoder_blocks=names["n_conv_per_stage_decoder"],
        bias=True,
        norm={"affine": True},
    )
    weights = {name: _draw(random, name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()}
    for level, features in enumerate(names["features_per_stage"][-2:0:-1]):  # heads for deep supervision
        weights[f"decoder.seg_layers.{level}.weight"] = torch.zeros(labels, features, 1, 1, 1)
        weights[f"decoder.seg_layers.{level}.bias"] = torch.zeros(labels)
    content = {
        "network_weights": _with_aliases(weights),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch_end_timestamps": [1.5]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"configuration": "3d_fullres", "fold": seed, "device": torch.device("cuda")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content | changes, path)


def _draw(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Kernels that smooth, so that the labels come in lumps, as those of a trained network do."""
    if len(shape) == 1:
        return torch.tensor(0.1 * random.standard_normal(shape) + name.endswith("norm.weight"), dtype=torch.float32)
    window = np.ones(())
    for size in shape[2:]:
        window = np.multiply.outer(window, np.hanning(size + 2)[1:-1] if size > 2 else np.ones(size))
    values = random.standard_normal((*shape[:2], 1, 1, 1)) * window + 0.1 * random.standard_normal(shape)
    return torch.tensor(values / np.sqrt(shape[1]), dtype=torch.float32)


def _with_aliases(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """nnU-Net's modules hold each layer in a list beside its name, and the encoder in the decoder too."""
    named = dict(weights)
    for name, tensor in weights.items():
        for place, part in enumerate((".conv.", ".norm.")):
            if part in name:
                named[name.replace(part, f".all_modules.{place}.")] = tensor
    return named | {f"decoder.{name}": tensor for name, tensor in named.items() if name.startswith("encoder.")}


def predict_by_nnunet(folder: Path, *, mirroring: bool) -> NDArray[np.uint8]:
    """The label of each voxel of `volume`, by nnU-Net's predictor on the CPU; nnunetv2 is needed."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=mirroring, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=None)
    image = volume().hounsfield.astype(np.float32)[None]
    labels = predictor.predict_single_npy_array(image, {"spacing": SPACING_MM})
    return np.asarray(labels, np.uint8)


def write_expected(to: Path = EXPECTED) -> None:
    """Store where nnU-Net's predictor finds the pancreas, in every case, eight voxels a byte."""
    masks = {}
    with TemporaryDirectory() as scratch:
        for case, arguments in CASES.items():
            folder = write_folder(Path(scratch) / case, **arguments)
            masks[case] = np.packbits(predict_by_nnunet(folder, mirroring=case == "mirrored") == LABELS["Pancreas"])
    to.parent.mkdir(exist_ok=True)
    np.savez_compressed(to, **masks)  # type: ignore[arg-type]


if __name__ == "__main__":
    write_expected()

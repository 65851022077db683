"""What MONAI's own tools need to run a model as the node does: its metadata, and configurations to infer and to train.

They are written, never read: `python -m monai.bundle run --config_file configs/inference.json --bundle_root .`
(https://docs.monai.io/en/stable/mb_specification.html, https://docs.monai.io/en/stable/config_syntax.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from monai.networks import nets

from models.card import Card
from models.dints import definition
from models.networks import NETWORKS

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_PACKAGES = {"fire": "0.7.1", "nibabel": "5.4.2", "pytorch-ignite": "0.5.5"}
_TRANSFORM = "monai.transforms.utils.create_"
_GRID = {
    "step": "$lambda x: np.array(@spacing) / x.pixdim.numpy()",
    "voxels": "$lambda x: np.ceil(np.array(x.shape[1:]) / @step(x) - 1e-3).astype(int)",
    "first": "$lambda x: (np.array(x.shape[1:]) - 1 - (@voxels(x) - 1) * @step(x)) / 2",
    "move": f"$lambda x: {_TRANSFORM}translate(3, @first(x)).dot({_TRANSFORM}scale(3, @step(x)))",
    "grid": "$lambda x: monai.data.MetaTensor(torch.empty(1, *@voxels(x)), affine=x.affine.numpy().dot(@move(x)))",
    "sigma": "$lambda x: ((np.array(@spacing) ** 2 - x.pixdim.numpy() ** 2).clip(0) / 12) ** 0.5 / x.pixdim.numpy()",
    "smooth": "$lambda x: monai.transforms.GaussianSmooth(@sigma(x).tolist(), approx='scalespace')(x)",
}
"""The node's grid and smoothing (`pipeline.preprocess`), for images whose axes are the patient's."""

_LOAD = "$@network.load_state_dict(torch.load(@weights, map_location=@device, weights_only=True))"
_LOAD_ALL = (
    "$[network.load_state_dict(torch.load(weights, map_location=@device, weights_only=True)) "
    "for network, weights in zip(@networks, @all_weights, strict=True)]"
)

Config = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Whose a model is: MONAI's metadata ask for it."""

    authors: str
    copyright: str


OURS = Origin(authors="pancreas-dicomnode project", copyright="Apache-2.0")


def metadata(card: Card, origin: Origin) -> Config:
    """MONAI's metadata, with the card beside it."""
    channels = {str(channel): name for channel, name in card.labels.items()}
    tensor = {"type": "image", "spatial_shape": _window(card), "dtype": "float32", "is_patch_data": True}
    image = {"format": "hounsfield", "modality": "CT", "num_channels": 1, "value_range": list(card.scaled_to)}
    labels = {"format": "labels", "modality": "n/a", "num_channels": len(channels), "value_range": []}
    return {
        "schema": _SCHEMA,
        "name": card.name,
        "version": card.version,
        "changelog": {card.version: "see docs/README.md"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": _PACKAGES,
        "task": f"Segmentation of the {card.labels[card.target]} on CT",
        "description": card.statement,
        "intended_use": card.statement,
        "authors": origin.authors,
        "copyright": origin.copyright,
        "network_data_format": {
            "inputs": {"image": tensor | image | {"channel_def": {"0": "image"}}},
            "outputs": {"pred": tensor | labels | {"channel_def": channels}},
        },
        "card": asdict(card),
    }


def inference(card: Card) -> Config:
    """A configuration that labels each `input/*.nii.gz` as the node does, every piece of it, without `Card.flips`.

    Images whose axes are oblique to the patient's are resampled along their own axes, as MONAI does, not upright.
    """
    return {
        **_start(card),
        **(_members(card) if card.members > 1 else {}),
        "input": "$sorted(glob.glob(@bundle_root + '/input/*.nii.gz'))",
        "output_dir": "$@bundle_root + '/output'",
        "preprocessing": _compose(_preprocessing(card, ["image"])),
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @input]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": _inferer(card),
        "postprocessing": _compose(
            [
                _step("Activationsd", _predictions(card), softmax=True),
                *([_step("MeanEnsembled", _predictions(card), output_key="pred")] if card.members > 1 else []),
                _step("Invertd", ["pred"], transform="@preprocessing", orig_keys="image", nearest_interp=False),
                _step("AsDiscreted", ["pred"], argmax=True),
                _step("SaveImaged", ["pred"], output_dir="@output_dir", output_dtype="$np.uint8", output_postfix="seg"),
            ]
        ),
        "evaluator": _evaluator(card),
        "initialize": [_LOAD_ALL if card.members > 1 else _LOAD],
        "run": ["$@evaluator.run()"],
    }


def _members(card: Card) -> Config:
    """The networks of an ensemble, and where their weights are."""
    further = [f"$@bundle_root + '/models/model_{number}.pt'" for number in range(1, card.members)]
    return {
        "all_weights": ["@weights", *further],
        "networks": f"$[copy.deepcopy(@network) for _ in range({card.members})]",
    }


def _predictions(card: Card) -> list[str]:
    return [f"pred_{number}" for number in range(card.members)] if card.members > 1 else ["pred"]


def _evaluator(card: Card) -> Config:
    evaluator = {
        "device": "@device",
        "val_data_loader": "@dataloader",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
    }
    if card.members > 1:
        networks = {"networks": "@networks", "pred_keys": _predictions(card)}
        return {"_target_": "EnsembleEvaluator"} | evaluator | networks
    return {"_target_": "SupervisedEvaluator"} | evaluator | {"network": "@network"}


def train(card: Card) -> Config:
    """A configuration that trains the weights on with `imagesTr/*.nii.gz` and `labelsTr/*.nii.gz` of a folder.

    The labels' values are the card's channels. The trained weights, a state of the network, are put into `output_dir`.
    Of an ensemble it is the first member.
    """
    files = "$[{'image': i, 'label': l} for i, l in zip(@images, @labels, strict=True)]"
    return {
        **_start(card),
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/output'",
        "images": "$sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz'))",
        "labels": "$sorted(glob.glob(@dataset_dir + '/labelsTr/*.nii.gz'))",
        "epochs": 100,
        "learning_rate": 0.001,
        "preprocessing": _compose([*_preprocessing(card, ["image", "label"]), *_crops(card)]),
        "dataset": {"_target_": "CacheDataset", "data": files, "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": True},
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "optimizer": {"_target_": "torch.optim.AdamW", "params": "$@network.parameters()", "lr": "@learning_rate"},
        "saver": {
            "_target_": "CheckpointSaver",
            "save_dir": "@output_dir",
            "save_dict": {"model": "@network"},
            "save_final": True,
            "final_filename": "model.pt",
        },
        "trainer": {
            "_target_": "SupervisedTrainer",
            "device": "@device",
            "max_epochs": "@epochs",
            "train_data_loader": "@dataloader",
            "network": "@network",
            "optimizer": "@optimizer",
            "loss_function": "@loss",
            "train_handlers": [{"_target_": "StatsHandler", "output_transform": "$lambda x: x[0]['loss']"}, "@saver"],
        },
        "initialize": [_LOAD],
        "run": ["$@trainer.run()"],
    }


def _start(card: Card) -> Config:
    """What both configurations begin with."""
    return {
        "imports": ["$import glob", "$import copy"],
        "bundle_root": ".",
        "weights": "$@bundle_root + '/models/model.pt'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "spacing": list(card.spacing_mm),
        **(_GRID if card.convention == "monai" else {}),
        "network_def": _network(card),
        "network": "$@network_def.to(@device)",
    }


def _network(card: Card) -> Config:
    """MONAI's classes by their names, so that MONAI alone is needed; ours by where they are."""
    if card.network == "DiNTS":
        return {"_target_": "DiNTS", **definition(card.network_arguments)}
    network = NETWORKS[card.network]
    is_ours = getattr(nets, card.network, None) is not network
    target = f"{network.__module__}.{network.__name__}" if is_ours else card.network
    return {"_target_": target, **card.network_arguments}


def _preprocessing(card: Card, keys: Sequence[str]) -> list[Config]:
    """From the file to what the network sees; the first of the keys is the image, the others are labels."""
    modes = ["bilinear", "nearest"][: len(keys)]
    read = [_step("LoadImaged", keys, ensure_channel_first=True), _step("Orientationd", keys, axcodes=card.orientation)]
    if card.convention == "spacingd":
        return [*read, _step("Spacingd", keys, pixdim="@spacing", mode=modes), *_scalings(card)]
    return [
        *read,
        *_scalings(replace(card, scaled_to=(0.0, 1.0))),
        _step("Lambdad", keys[:1], func="@smooth"),
        _step("CopyItemsd", keys[:1], names="grid"),
        _step("Lambdad", ["grid"], func="@grid"),
        # Beyond the image 0 is put: the lower end of the window, up to here.
        _step("ResampleToMatchd", keys, key_dst="grid", mode=modes, padding_mode="zeros"),
        *(_scalings(replace(card, window_hu=(0.0, 1.0))) if card.scaled_to != (0.0, 1.0) else []),
    ]


def _crops(card: Card) -> list[Config]:
    """Windows around voxels of the labels and of the background, alike often."""
    both = ["image", "label"]
    shape = [1, *card.patch[1:]] if _is_flat(card) else list(card.patch)
    crop = _step("RandCropByPosNegLabeld", both, label_key="label", spatial_size=shape, num_samples=2)
    return [
        _step("SpatialPadd", both, spatial_size=shape),
        crop,
        *([_step("SqueezeDimd", both, dim=1)] if _is_flat(card) else []),
    ]


def _inferer(card: Card) -> Config:
    inferer = {
        "_target_": "SlidingWindowInferer",
        "roi_size": _window(card),
        "overlap": card.overlap,
        "mode": card.blending,
        "padding_mode": card.padding,
    }
    return inferer | {"_target_": "SliceInferer", "spatial_dim": 0} if _is_flat(card) else inferer


def _window(card: Card) -> list[int]:
    return list(card.patch[1:] if _is_flat(card) else card.patch)


def _is_flat(card: Card) -> bool:
    return bool(card.network_arguments.get("spatial_dims") == 2)


def _scalings(card: Card) -> list[Config]:
    low, high = card.scaled_to
    if card.window_hu is None:
        ranged = _step("ScaleIntensityd", ["image"], minv=low, maxv=high)
        return [_step("NormalizeIntensityd", ["image"], nonzero=True), ranged]
    least, greatest = card.window_hu
    window = {"a_min": least, "a_max": greatest, "b_min": low, "b_max": high}
    return [_step("ScaleIntensityRanged", ["image"], **window, clip=True)]


def _step(name: str, keys: Sequence[str], **arguments: Any) -> Config:
    return {"_target_": name, "keys": list(keys), **arguments}


def _compose(transforms: Sequence[Config]) -> Config:
    return {"_target_": "Compose", "transforms": list(transforms)}

"""Every recipe, made small, from data in its own layout to a bundle that is exported, read again and judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from models.bundle import read_bundle
from training.batches import Source
from training.cases import Case
from training.datasets import find_examples, read_example
from training.evaluate import judge
from training.export import export
from training.ranks import Ranks
from training.recipe import Recipe, read_recipe
from training.sources import make_source, parse_fold
from training.train import Run, Trainer

RECIPES = sorted((Path(__file__).parents[3] / "training" / "recipes").glob("*.toml"))
SHAPE = (24, 40, 48)
SMALL: dict[str, dict[str, Any]] = {
    "cropped-pancreas-2d": {"network": {"channels": [4, 8, 8]}},
    "ircad-liver-2d": {"network": {"channels": [4, 8], "strides": [2], "num_res_units": 0}},
    "pancreas-2d": {"network": {"decoder_channels": [8, 8, 8, 8, 8]}, "pretrained": ""},
    "pancreas-2d-slices": {"network": {"channels": [4, 8], "strides": [2], "num_res_units": 0}},
    "pancreas-3d": {"network": {}, "pretrained": ""},
    "pancreas-3d-patches": {"network": {"decoder_channels": [8, 8, 8, 8, 8]}, "pretrained": ""},
    "spleen-3d": {"network": {"channels": [4, 8], "strides": [2], "num_res_units": 0}},
}


def small(path: Path) -> Recipe:
    """The recipe as it is, but for sizes."""
    content = read_recipe(path).model_dump()
    size = 32 if content["network"]["name"] in ("FlexibleUNet", "LiteUNet") else 16
    depth = 1 if content["card"]["patch"][0] == 1 else size
    content |= {"steps": 2, "validate_every": 1, "held_out": 0.34}
    content["card"] |= {"patch": (depth, size, size), "spacing_mm": (4.0, 4.0, 4.0)}
    content["optimisation"] |= {"precision": "float32"}
    if content["data"]["kind"] == "examples":
        content["data"] |= {"crop": (depth, size, size), "batch_size": 2}
    else:
        content["data"] |= {
            "crop": (8, size, size),
            "synthetic_per_step": 1,
            "slices_per_step": 2,
            "slice_depths": (depth,),
        }
    for key, value in SMALL[path.stem].items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return Recipe(**content)


def body(seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """HU and mask of an organ in fat."""
    random = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    mask[6:18, 12:26, 14 + seed : 34 + seed] = 1
    return (np.where(mask, 110, -80) + random.normal(0, 5, SHAPE)).astype(np.int16), mask


def write_nifti(path: Path, voxels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.diag([-4.0, -4.0, 4.0, 1.0])), path)


def decathlon(folder: Path, structure: str) -> None:
    names = [f"{structure}_{number:03d}.nii.gz" for number in range(3)]
    for number, name in enumerate(names):
        image, mask = body(number)
        write_nifti(folder / "imagesTr" / name, image)
        write_nifti(folder / "labelsTr" / name, mask)
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": structure, "2": "cancer"},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def ircad(folder: Path) -> None:
    for number in range(3):
        image, mask = body(number)
        write_nifti(folder / f"patient{number}_orig.nii.gz", image)
        write_nifti(folder / f"patient{number}_liver.nii.gz", mask)


def pictures(folder: Path) -> None:
    for number in range(3):
        image, mask = (array[10].astype(float) for array in body(number))
        for kind, plane in (("images", image.clip(0, 255)), ("masks", mask * 255)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(np.flipud(plane).astype(np.uint8)).resize((192, 160))
            picture.save(folder / kind / f"PANCREAS_{number + 1:04d}-1010.png")


def synthetic(folder: Path) -> None:
    pictures(folder / "nih-slices")
    codes = np.zeros((40, 60, 60), np.uint8)
    codes[10:30, 15:45, 15:45], codes[4:8] = 1, 2
    affine = np.diag([-1.5, -1.5, 1.5, 1.0])
    (folder / "anatomies").mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(codes.T, affine), folder / "anatomies" / "one_117.nii.gz")
    (folder / "anatomies" / "one_names.txt").write_text("1 pancreas 1.0\n2 liver 1.0\n")


DATA = {
    "cropped-pancreas-2d": pictures,
    "ircad-liver-2d": ircad,
    "pancreas-2d": synthetic,
    "pancreas-2d-slices": pictures,
    "pancreas-3d": synthetic,
    "pancreas-3d-patches": lambda folder: decathlon(folder, "pancreas"),
    "spleen-3d": lambda folder: decathlon(folder, "spleen"),
}


def source_of(recipe: Recipe, folder: Path) -> Source:
    return make_source(recipe, folder / "data", folder / "run")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_goes_from_its_data_to_a_judged_bundle(path: Path, tmp_path: Path) -> None:
    DATA[path.stem](tmp_path / "data")
    recipe = small(path)
    source = source_of(recipe, tmp_path)
    Trainer(recipe, Run(tmp_path / "run"), source, Ranks(0, 1, "cpu")).train()
    card = export(recipe, [tmp_path / "run" / "best.pt"], "1.2.3", tmp_path / "bundle", half=True)
    model = read_bundle(tmp_path / "bundle")
    assert (model.card, card.name, card.target) == (card, path.stem, 1)

    image, mask = body(0)
    write_nifti(tmp_path / "case_orig.nii.gz", image)
    write_nifti(tmp_path / "case_organ.nii.gz", mask)
    labelled = read_example(find_examples(tmp_path)[0], {"organ": 1})
    row, _ = judge(Case("case", "case", labelled.volume, labelled.labels == 1), model)
    assert row.true_ml == pytest.approx(mask.sum() * 0.064)
    assert 0 <= row.dice <= 1
    if recipe.data.kind == "examples":
        manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
        assert {record["split"] for record in manifest["files"]} == {"training", "validation"}


def test_no_recipe_is_without_a_test() -> None:
    assert {path.stem for path in RECIPES} == DATA.keys() == SMALL.keys()


def test_it_learns_what_is_easy(tmp_path: Path) -> None:
    pictures(tmp_path / "data")
    recipe = small(next(path for path in RECIPES if path.stem == "pancreas-2d-slices"))
    steps = recipe.model_copy(
        update={
            "steps": 60,
            "validate_every": 60,
            "optimisation": recipe.optimisation.model_copy(update={"learning_rate": 1e-2, "ema": 0.0}),
        }
    )
    assert Trainer(steps, Run(tmp_path / "run"), source_of(steps, tmp_path), Ranks(0, 1, "cpu")).train() > 0.8


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    pictures(tmp_path / "data")
    text = next(path for path in RECIPES if path.stem == "pancreas-2d-slices").read_text()
    for old, new in (
        ("[1, 160, 192]", "[1, 32, 32]"),
        ("channels = [16, 32, 64, 128, 256]", "channels = [4, 8]"),
        ("strides = [2, 2, 2, 2]", "strides = [2]"),
        ("validate_every = 100", "validate_every = 2"),
        ("held_out = 0.2", "held_out = 0.34"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "recipe.toml").write_text(text)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "training.train"]
    command += ["--recipe", str(tmp_path / "recipe.toml"), "--data", str(tmp_path / "data"), "--device", "cpu"]
    command += ["--out", str(tmp_path / "run"), "--steps", "2", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best mean Dice") == 1
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["pace"]["step"] == 2


def test_folds_are_parsed() -> None:
    assert parse_fold(None) is None
    assert parse_fold("0/5") == (0, 5)
    for wrong in ("5/5", "1", "a/b"):
        with pytest.raises(ValueError, match="K/N"):
            parse_fold(wrong)

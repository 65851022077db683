"""A bundle in the layout of MONAI's Model Zoo becomes one of ours, which labels as MONAI's own run of it does."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ConfigParser

from models.bundle import INFERENCE, METADATA, BadBundle, read_bundle
from models.zoo import import_zoo
from pipeline.analyse import Options, segment
from pipeline.nifti import read_nifti
from pipeline.postprocess import largest_component
from tests.monai_bundles import volume, write_volume
from tests.zoo_folders import Edit, write_zoo

LEAST_DICE = {"wholebody": 0.97, "wholebody on the image's grid": 0.999, "btcv": 0.999, "dints": 0.999}
"""Of wholebody MONAI brings labels back to the nearest voxel; the node interpolates probabilities, as the others do."""


def run_by_monai(folder: Path, image: Path) -> Path:
    """What MONAI makes of the bundle, told of this folder, this image, and that there is no accelerator."""
    path = next((folder / "configs").glob("inference.*"))
    parser = ConfigParser(ConfigParser.load_config_file(path))
    parser.update({"bundle_root": str(folder), "datalist": [str(image)], "output_dir": str(folder / "eval")})
    if "arch_ckpt" in parser:
        codes = "$torch.load(@arch_ckpt_path, weights_only=False)"
        parser.update({"arch_ckpt": codes, "dints_space#device": "cpu"})
    if "img_size" in parser["network_def"]:  # MONAI's present SwinUNETR does not take it
        del parser["network_def"]["img_size"]
    parser.parse()
    for part in ("initialize", "run"):
        parser.get_parsed_content(part)
    return next((folder / "eval").rglob("*_trans.nii.gz"))


def on_the_images_grid(metadata: dict[str, Any], configuration: dict[str, Any]) -> None:
    configuration["pixdim"] = list(volume().grid.geometry.spacing[::-1])


@pytest.mark.parametrize("case", LEAST_DICE)
def test_the_imported_bundle_labels_as_monai_does(tmp_path: Path, case: str) -> None:
    layout = case.split()[0]
    folder = write_zoo(tmp_path / "zoo", layout, on_the_images_grid if case != layout else lambda m, c: None)
    image = tmp_path / "ct.nii.gz"
    write_volume(volume(), image)
    card = import_zoo(folder, tmp_path / "bundle")
    options = Options(at=datetime(2026, 1, 1, tzinfo=UTC))
    segmentation, _ = segment(read_nifti(image), read_bundle(tmp_path / "bundle"), options)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(run_by_monai(folder, image))))
    theirs, _ = largest_component(labels == card.target)
    assert 0.02 < theirs.mean() < 0.6
    both = np.count_nonzero(segmentation.mask & theirs)
    assert 2 * both / (np.count_nonzero(segmentation.mask) + np.count_nonzero(theirs)) >= LEAST_DICE[case]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_zoo(tmp_path / "zoo", "wholebody")


def test_the_card_says_what_the_configuration_says(folder: Path, tmp_path: Path) -> None:
    card = import_zoo(folder, tmp_path / "bundle")
    assert (card.name, card.version) == ("wholebody segmentation", "0.1.9")
    assert (card.labels, card.target) == ({0: "background", 1: "spleen", 2: "Pancreas"}, 2)
    assert (card.orientation, card.spacing_mm, card.patch) == ("RAS", (1.5, 1.5, 2.5), (32, 32, 32))
    assert (card.window_hu, card.scaled_to, card.convention) == (None, (-1.0, 1.0), "spacingd")
    assert (card.overlap, card.blending, card.padding) == (0.25, "gaussian", "replicate")
    assert card.network == "SegResNet"
    assert "not to be used for diagnostic purposes" in card.statement


def test_what_is_not_said_is_as_monai_has_it(tmp_path: Path) -> None:
    card = import_zoo(write_zoo(tmp_path / "zoo", "btcv"), tmp_path / "bundle")
    assert (card.window_hu, card.scaled_to) == ((-175.0, 250.0), (0.0, 1.0))
    assert (card.blending, card.padding) == ("constant", "constant")
    assert "img_size" not in card.network_arguments


def test_the_bundle_names_its_source_and_keeps_its_licence(folder: Path, tmp_path: Path) -> None:
    import_zoo(folder, tmp_path / "bundle")
    text = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    for said in ("`zoo`", "MONAI team", "Copyright (c) MONAI Consortium", "Made up", "A paper."):
        assert said in text
    assert (tmp_path / "bundle" / "LICENSE").read_text() == "A licence.\n"
    assert json.loads((tmp_path / "bundle" / METADATA).read_text())["authors"] == "MONAI team"


def test_the_written_configuration_makes_the_network_again(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    import_zoo(write_zoo(tmp_path / "zoo", "dints"), bundle)
    parser = ConfigParser(json.loads((bundle / INFERENCE).read_text()))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))


def step(configuration: dict[str, Any], at: int) -> dict[str, Any]:
    return configuration["preprocessing"]["transforms"][at]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m, c: m.pop("network_data_format"), "metadata.json: no entry 'network_data_format'"),
        (lambda m, c: m["network_data_format"]["outputs"]["pred"].update(num_channels=1), "num_channels is 1"),
        (lambda m, c: m["network_data_format"]["inputs"]["image"].update(num_channels=2), "needs 2 images"),
        (lambda m, c: m["network_data_format"]["outputs"]["pred"]["channel_def"].update({"2": "x"}), "no channel"),
        (lambda m, c: c.pop("network_def"), "no entry 'network_def'"),
        (lambda m, c: c.update(network_def="$monai.networks.nets.vista3d132(in_channels=1)"), "network_def would have"),
        (lambda m, c: c["network_def"].update(_target_="scripts.networks.UNEST"), "unknown network scripts.networks"),
        (lambda m, c: c["network_def"].update(_target_="Folds"), "unknown network Folds"),
        (lambda m, c: c["network_def"].update(init_filters="$8 * 2"), "network_def#init_filters would have to be exec"),
        (lambda m, c: c["network_def"].update(init_filters="%a.json#b"), "network_def#init_filters would have to be"),
        (lambda m, c: c["network_def"].update(init_filters=16), "does not fit the configuration's network"),
        (lambda m, c: c["network_def"].update(out_channels=4), "the network has 4 channels, the metadata name 3"),
        (lambda m, c: c["network_def"].update(init_filters="@nothing"), "no entry 'nothing'"),
        (lambda m, c: c.update(pixdim="@pixdim"), "recursion"),
        (lambda m, c: step(c, 1).update(_target_="CropForegroundd"), "preprocessing is CropForegroundd > Orientationd"),
        (lambda m, c: step(c, 3).update(diagonal=True), "Spacingd with {'mode': 'bilinear', 'diagonal': True}"),
        (lambda m, c: step(c, 4).update(nonzero=False), "NormalizeIntensityd with {'nonzero': False}"),
        (lambda m, c: c["inferer"].update(_target_="scripts.inferer.Mine"), "not a SlidingWindowInferer"),
        (lambda m, c: c["inferer"].update(sigma_scale=0.5), "inferer with sigma_scale"),
        (lambda m, c: c["inferer"].update(mode="triangular"), "unknown blending 'triangular'"),
        (lambda m, c: c["postprocessing"]["transforms"].pop(1), "does not take the most probable label"),
        (lambda m, c: c["checkpointloader"].update(load_path="/tmp/model.pt"), "/tmp/model.pt is outside"),
        (lambda m, c: c["checkpointloader"].update(load_path="$@bundle_root + '/models/model.ts'"), "TorchScript"),
        (lambda m, c: c["displayable_configs"].update(highres=False), "models/model_lowres.pt: No such file"),
        (lambda m, c: c["checkpointloader"].update(load_path="$open('x')"), "load_path would have to be executed"),
    ],
)
def test_what_cannot_be_run_says_why(tmp_path: Path, edit: Edit, message: str) -> None:
    folder = write_zoo(tmp_path / "zoo", "wholebody", edit)
    with pytest.raises(BadBundle) as caught:
        import_zoo(folder, tmp_path / "bundle")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_nothing_of_a_configuration_is_executed(tmp_path: Path) -> None:
    trap = f"$[1.5, 1.5, 1.5] if __import__('pathlib').Path({str(tmp_path / 'trap')!r}).touch() else [3, 3, 3]"
    folder = write_zoo(tmp_path / "zoo", "wholebody", lambda _, configuration: configuration.update(pixdim=trap))
    with pytest.raises(BadBundle, match="pixdim would have to be executed"):
        import_zoo(folder, tmp_path / "bundle")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(("layout", "part"), [("wholebody", "model.pt"), ("dints", "search_code_18590.pt")])
def test_files_that_would_run_code_are_refused(tmp_path: Path, layout: str, part: str) -> None:
    folder = write_zoo(tmp_path / "zoo", layout)
    torch.save({"node_a": Path("x")}, folder / "models" / part)
    with pytest.raises(BadBundle, match=rf"{part}: not \w+ alone"):
        import_zoo(folder, tmp_path / "bundle")


@pytest.mark.filterwarnings("ignore:.*TorchScript:UserWarning")
def test_torchscript_is_refused(folder: Path, tmp_path: Path) -> None:
    torch.jit.script(torch.nn.ReLU()).save(str(folder / "models" / "model.pt"))
    with pytest.raises(BadBundle, match=r"model\.pt: not weights alone"):
        import_zoo(folder, tmp_path / "bundle")
    (folder / "models" / "model.pt").rename(folder / "models" / "model.ts")
    with pytest.raises(BadBundle, match=r"TorchScript holds code"):
        import_zoo(folder, tmp_path / "bundle")


def test_missing_and_broken_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(BadBundle, match=r"model\.pt: No such file"):
        import_zoo(folder, tmp_path / "bundle")
    path = folder / "configs" / "inference.json"
    path.write_text("{")
    with pytest.raises(BadBundle, match=r"inference\.json: not JSON"):
        import_zoo(folder, tmp_path / "bundle")
    path.rename(path.with_suffix(".yaml")).write_text("a: !!python/object/apply:os.getcwd []")
    with pytest.raises(BadBundle, match=r"inference\.yaml: not YAML"):
        import_zoo(folder, tmp_path / "bundle")
    path.with_suffix(".yaml").unlink()
    with pytest.raises(BadBundle, match=r"configs: no inference\.json"):
        import_zoo(folder, tmp_path / "bundle")

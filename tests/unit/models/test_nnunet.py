"""An nnU-Net folder becomes a model; every way in which one may be unfit gives one clear line."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.bundle import BadBundle, read_bundle
from models.nnunet import Choice, import_nnunet, read_nnunet
from tests.nnunet_folders import INTENSITY, in_first_form, write_checkpoint, write_folder

CHECKPOINT = "fold_0/checkpoint_final.pth"
Edit = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model")


def settings(plans: dict[str, Any]) -> dict[str, Any]:
    return plans["configurations"]["3d_fullres"]


def arguments(plans: dict[str, Any]) -> dict[str, Any]:
    return settings(plans)["architecture"]["arch_kwargs"]


def test_the_card_says_what_the_plans_say(folder: Path) -> None:
    card = read_nnunet(folder).card
    assert (card.name, card.version) == ("Dataset901_Tiny 3d_fullres", card.sha256[:12])
    assert (card.spacing_mm, card.patch, card.orientation) == ((2.5, 1.6, 1.5), (16, 32, 32), "SPL")
    assert card.labels == {0: "background", 1: "liver", 2: "Pancreas", 3: "spleen"}
    assert card.target == 2
    assert card.window_hu == (INTENSITY["percentile_00_5"], INTENSITY["percentile_99_5"])
    assert card.scaled_to == pytest.approx((-2.0, 23 / 9))
    assert card.convention == "nnunet"


def test_the_axes_of_the_network_are_those_of_the_patient(tmp_path: Path) -> None:
    transposed = write_folder(tmp_path / "a", transpose=[2, 0, 1])
    assert read_nnunet(transposed).card.orientation == "LSP"
    assert read_nnunet(transposed, Choice(orientation="SAR")).card.orientation == "RSA"
    turned = write_folder(
        tmp_path / "b", edit=lambda plans, _: plans.update(image_reader_writer="NibabelIOWithReorient")
    )
    assert read_nnunet(turned).card.orientation == "SAR"


def test_the_target_is_chosen_by_its_name(folder: Path) -> None:
    assert read_nnunet(folder, Choice(target="Liver")).card.target == 1
    with pytest.raises(BadBundle, match=r"dataset\.json: no label 'kidney' among liver, Pancreas, spleen"):
        read_nnunet(folder, Choice(target="kidney"))


def test_a_region_stands_alone_against_the_background(tmp_path: Path) -> None:
    regions = {"background": 0, "organ": [1, 2, 3], "pancreas": [2, 3], "tumour": 3, "duct": 4}
    folder = write_folder(tmp_path / "model", edit=lambda _, dataset: dataset.update(labels=regions))
    model = read_nnunet(folder)
    assert model.card.labels == {0: "background", 1: "pancreas"}
    image = torch.rand(1, 1, 16, 32, 32)
    everything = read_nnunet(write_folder(tmp_path / "labels")).network
    with torch.inference_mode():
        logits = model.network(image)
        assert torch.equal(logits[:, 1], everything(image)[:, 1])
    assert not logits[:, 0].any()


def test_labels_may_leave_out_values_and_have_an_ignored_one(tmp_path: Path) -> None:
    labels = {"background": 0, "spleen": 5, "pancreas": 2, "liver": 1, "ignore": 6}
    card = read_nnunet(write_folder(tmp_path, edit=lambda _, dataset: dataset.update(labels=labels))).card
    assert card.labels == {0: "background", 1: "liver", 2: "pancreas", 3: "spleen"}


@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_the_logits_of_folds_are_averaged(tmp_path: Path, architecture: str) -> None:
    folder = write_folder(tmp_path, architecture=architecture, folds=2)
    image = torch.rand(1, 1, 16, 32, 32)
    with torch.inference_mode():
        one, other, both = (read_nnunet(folder, Choice(folds=folds)).network(image) for folds in (["0"], ["1"], []))
    assert not torch.allclose(one, other)
    assert torch.allclose(both, (one + other) / 2, atol=1e-5)


def test_mirrored_images_are_averaged_when_asked(folder: Path) -> None:
    image = torch.rand(1, 1, 16, 32, 32)
    with torch.inference_mode():
        once, mirrored = (read_nnunet(folder, Choice(mirroring=mirroring)).network for mirroring in (False, True))
        flips = [(), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)]
        mean = sum(once(image.flip(flip)).flip(flip) for flip in flips) / 8
        assert torch.allclose(mirrored(image), mean, atol=1e-5)


def test_a_folder_with_one_network_of_all_data_is_read(folder: Path) -> None:
    (folder / "fold_0").rename(folder / "fold_all")
    assert read_nnunet(folder).card.network_arguments["members"] == 1


def test_the_first_form_of_plans_gives_the_same_network(tmp_path: Path, folder: Path) -> None:
    first = read_nnunet(write_folder(tmp_path / "first", edit=in_first_form))
    assert first.card.network_arguments == read_nnunet(folder).card.network_arguments


def test_a_configuration_may_inherit(folder: Path) -> None:
    init = {"configuration": "3d_again"}
    write_checkpoint(folder / CHECKPOINT, "PlainConvUNet", seed=0, init_args=init)
    assert read_nnunet(folder).card.patch == (16, 32, 32)


def test_the_hash_is_of_everything_that_decides(folder: Path) -> None:
    before = read_nnunet(folder).card.sha256
    assert read_nnunet(folder).card.sha256 == before
    (folder / "dataset.json").write_text((folder / "dataset.json").read_text() + "\n")
    assert read_nnunet(folder).card.sha256 != before


def test_a_folder_can_be_kept_as_a_bundle(folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    card = import_nnunet(folder, bundle)
    kept, model = read_bundle(bundle), read_nnunet(folder)
    assert kept.card == card
    assert model.card.sha256 in (bundle / "docs" / "README.md").read_text()
    image = torch.rand(1, 1, 16, 32, 32)
    with torch.inference_mode():
        assert torch.equal(kept.network(image), model.network(image))
    with pytest.raises(BadBundle, match="exists already"):
        import_nnunet(folder, bundle)


@pytest.mark.parametrize("part", ["plans.json", "dataset.json"])
def test_a_missing_file_is_named(folder: Path, part: str) -> None:
    (folder / part).unlink()
    with pytest.raises(BadBundle, match=f"{part}: No such file"):
        read_nnunet(folder)
    (folder / part).write_text("{")
    with pytest.raises(BadBundle, match=f"{part}: not JSON"):
        read_nnunet(folder)


def test_a_missing_fold_is_named(folder: Path) -> None:
    with pytest.raises(BadBundle, match=r"fold_3/checkpoint_final\.pth: No such file"):
        read_nnunet(folder, Choice(folds=["3"]))
    (folder / CHECKPOINT).unlink()
    with pytest.raises(BadBundle, match=r"no fold_\*/checkpoint_final\.pth"):
        read_nnunet(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p, d: p.pop("configurations"), "plans.json: no entry 'configurations'"),
        (lambda p, d: p["configurations"].pop("3d_fullres"), "plans.json: no entry '3d_fullres'"),
        (lambda p, d: settings(p).update(patch_size=[32, 32]), "not three-dimensional"),
        (lambda p, d: settings(p).update(previous_stage="3d_lowres"), "needs the result of 3d_lowres"),
        (lambda p, d: settings(p).update(inherits_from="3d_fullres"), "inherits from itself"),
        (lambda p, d: settings(p).update(normalization_schemes=["ZScoreNormalization"]), "ZScoreNormalization"),
        (lambda p, d: settings(p).update(preprocessor_name="Mine"), "needs Mine"),
        (lambda p, d: settings(p).update(resampling_fn_data="no_resampling"), "resamples by no_resampling"),
        (lambda p, d: settings(p).update(spacing=[1.0, 1.0]), "not enough values"),
        (lambda p, d: p.update(transpose_forward=[0, 0, 1]), "does not order three axes"),
        (lambda p, d: settings(p)["architecture"].update(network_class_name="a.Mamba"), "unknown architecture Mamba"),
        (lambda p, d: arguments(p).update(conv_op="os.system"), "PlainConvUNet of system"),
        (lambda p, d: arguments(p).update(nonlin="torch.nn.GELU"), "with GELU"),
        (lambda p, d: arguments(p).update(nonlin_first=True), "with nonlin_first"),
        (lambda p, d: arguments(p).update(strides=[[1, 1, 1]]), "one entry per stage"),
        (lambda p, d: arguments(p).update(features_per_stage=[4, 8, 10**6]), "the architecture of plans.json needs"),
        (lambda p, d: arguments(p).update(n_conv_per_stage=[1, 1, 2]), "has besides the architecture"),
        (lambda p, d: arguments(p).update(n_conv_per_stage=[2, 2, 2]), "lacks encoder.stages.1.0.convs.1"),
        (lambda p, d: d.update(channel_names={"0": "CT", "1": "PET"}), "needs 2 images at once: CT, PET"),
        (lambda p, d: d["labels"].update(spleen=2), "no value twice"),
        (lambda p, d: d.update(labels=[]), "dataset.json"),
    ],
)
def test_plans_that_cannot_be_run_say_why(tmp_path: Path, edit: Edit, message: str) -> None:
    folder = write_folder(tmp_path, edit=edit)
    with pytest.raises(BadBundle) as caught:
        read_nnunet(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_would_run_code_is_refused(folder: Path) -> None:
    write_checkpoint(folder / CHECKPOINT, "PlainConvUNet", seed=0, logging=Path("x"))
    with pytest.raises(BadBundle, match=r"checkpoint_final\.pth: holds more than tensors and numbers: pathlib\."):
        read_nnunet(folder)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_checkpoint_is_named(folder: Path, content: bytes) -> None:
    (folder / CHECKPOINT).write_bytes(content)
    with pytest.raises(BadBundle, match=r"checkpoint_final\.pth: ") as caught:
        read_nnunet(folder)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_named(folder: Path) -> None:
    path = folder / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(BadBundle, match=r"checkpoint_final\.pth: "):
        read_nnunet(folder)


@pytest.mark.parametrize("changes", [{"network_weights": {"a": 1}}, {"init_args": None}, {"network_weights": None}])
def test_a_checkpoint_without_what_is_needed_is_named(folder: Path, changes: dict[str, Any]) -> None:
    write_checkpoint(folder / CHECKPOINT, "PlainConvUNet", seed=0, **changes)
    with pytest.raises(BadBundle, match=r"checkpoint_final\.pth: "):
        read_nnunet(folder)


def test_numbers_as_older_numpy_pickled_them_are_read(folder: Path) -> None:
    numbers = [np.int64(3), np.bool_(True), np.float16(0.5)]
    write_checkpoint(folder / CHECKPOINT, "PlainConvUNet", seed=0, logging=numbers)
    with zipfile.ZipFile(folder / CHECKPOINT) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / CHECKPOINT, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(b"numpy._core.multiarray\nscalar", b"numpy.core.multiarray\nscalar"))
    assert b"numpy.core.multiarray" in (folder / CHECKPOINT).read_bytes()
    assert read_nnunet(folder).card.target == 2

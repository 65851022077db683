"""A bundle comes back as it was written; every way in which one may be broken gives one clear line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.bundle import INFERENCE, METADATA, WEIGHTS, BadBundle, read_bundle, write_bundle
from models.card import Card
from models.networks import NETWORKS, build

ARGUMENTS = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
CARD = Card(
    name="tiny",
    version="1.2.3",
    sha256="",
    orientation="SPL",
    spacing_mm=(3.0, 2.0, 2.0),
    window_hu=(-160.0, 240.0),
    patch=(8, 16, 16),
    overlap=0.25,
    labels={0: "background", 1: "pancreas"},
    target=1,
    statement="A test.",
    network="UNet",
    network_arguments=ARGUMENTS,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_bundle(tmp_path / "bundle", CARD, build("UNet", ARGUMENTS), "# tiny\n")
    return tmp_path / "bundle"


def change(folder: Path, edit: Callable[[dict], object]) -> None:
    metadata = json.loads((folder / METADATA).read_text())
    edit(metadata)
    (folder / METADATA).write_text(json.dumps(metadata))


def test_a_bundle_comes_back_as_it_was_written(tmp_path: Path) -> None:
    network = build("UNet", ARGUMENTS).eval()
    card = write_bundle(tmp_path, CARD, network, "# tiny\n")
    model = read_bundle(tmp_path)
    assert model.card == card
    assert len(card.sha256) == 64
    image = torch.rand(1, 1, 8, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model.network(image), network(image))


def test_the_metadata_describe_the_network_to_others(folder: Path) -> None:
    formats = json.loads((folder / METADATA).read_text())["network_data_format"]
    assert formats["inputs"]["image"]["spatial_shape"] == [8, 16, 16]
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "pancreas"}
    inference = json.loads((folder / INFERENCE).read_text())
    assert inference["network_def"] == {"_target_": "UNet", **ARGUMENTS}


def test_the_metadata_have_what_monai_requires(folder: Path) -> None:
    """The keys and values of https://docs.monai.io/en/stable/mb_specification.html; MONAI's schema is not at hand."""
    metadata = json.loads((folder / METADATA).read_text())
    texts = {"version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors"}
    assert all(metadata[key] and isinstance(metadata[key], str) for key in texts | {"copyright", "schema", "name"})
    assert all(isinstance(needed, str) for needed in metadata["required_packages_version"].values())
    assert metadata["version"] in metadata["changelog"]
    formats = metadata["network_data_format"]
    for tensor in (formats["inputs"]["image"], formats["outputs"]["pred"]):
        assert tensor["type"] == "image"
        assert tensor["format"] in ("hounsfield", "labels")
        assert tensor["modality"] in ("CT", "n/a")
        assert tensor["dtype"] == "float32"
        assert tensor["is_patch_data"] is True
        assert tensor["spatial_shape"] == [8, 16, 16]
        assert tensor["value_range"] in ([0, 1], [])
        assert list(tensor["channel_def"]) == [str(channel) for channel in range(tensor["num_channels"])]


def test_the_shipped_way_of_monai_makes_the_same_network(folder: Path) -> None:
    from monai.bundle import ConfigParser

    parser = ConfigParser(json.loads((folder / INFERENCE).read_text()))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    assert type(network) is NETWORKS["UNet"]


def test_monai_finds_a_network_that_is_not_its_own(tmp_path: Path) -> None:
    from monai.bundle import ConfigParser

    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "features": [4, 4, 8, 8, 8, 4]}
    card = replace(CARD, network="UNetPlusPlus", network_arguments=arguments)
    write_bundle(tmp_path, card, build("UNetPlusPlus", arguments), "# tiny\n")
    parser = ConfigParser(json.loads((tmp_path / INFERENCE).read_text()))
    assert type(parser.get_parsed_content("network_def")) is NETWORKS["UNetPlusPlus"]


@pytest.mark.parametrize("part", [METADATA, WEIGHTS])
def test_a_missing_file_is_named(folder: Path, part: Path) -> None:
    (folder / part).unlink()
    with pytest.raises(BadBundle, match=f"{part.name}.*No such file"):
        read_bundle(folder)


def test_weights_that_were_changed_are_not_even_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-100] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(BadBundle, match=r"model\.pt: SHA-256 is"):
        read_bundle(folder)


@pytest.mark.parametrize("content", ["{", "\x00\x01"])
def test_metadata_that_are_no_json_are_named(folder: Path, content: str) -> None:
    (folder / METADATA).write_text(content)
    with pytest.raises(BadBundle, match=r"metadata\.json: not JSON"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.pop("card"), "no entry 'card'"),
        (lambda m: m["card"].pop("patch"), "no entry 'patch'"),
        (lambda m: m["card"].pop("statement"), "statement"),
        (lambda m: m["card"].update(surplus=1), "surplus"),
        (lambda m: m["card"].update(target=7), "target channel 7"),
        (lambda m: m["card"].update(orientation="SSL"), "orientation"),
        (lambda m: m["card"].update(network="Transformer9"), "unknown network 'Transformer9'"),
        (lambda m: m["card"]["network_arguments"].update(colour="red"), "colour"),
        (lambda m: m["card"]["network_arguments"].update(channels=[8, 16]), "state_dict"),
    ],
)
def test_metadata_that_do_not_fit_say_what(folder: Path, edit: Callable[[dict], object], message: str) -> None:
    change(folder, edit)
    with pytest.raises(BadBundle, match=message) as caught:
        read_bundle(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_would_run_code_are_refused(folder: Path) -> None:
    import hashlib

    torch.save(Path("x"), folder / WEIGHTS)  # an object, not tensors alone
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    change(folder, lambda m: m["card"].update(sha256=digest))
    with pytest.raises(BadBundle, match=r"model\.pt"):
        read_bundle(folder)

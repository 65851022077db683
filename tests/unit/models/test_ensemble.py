"""Several bundles as one model, several networks in one bundle, and mirrored images."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.bundle import INFERENCE, BadBundle, Model, read_bundle, write_bundle
from models.card import Card
from models.ensemble import mirror, read_ensemble
from models.networks import build
from tests.fakes import CARD, threshold_model

TINY: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [2, 4], "strides": [2]}
IMAGE = torch.linspace(0, 1, 8 * 8 * 8).reshape(1, 1, 8, 8, 8)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build("UNet", TINY).eval()


def card(**changes: Any) -> Card:
    return replace(CARD, **{"network": "UNet", "network_arguments": TINY, **changes})


def write(folder: Path, seed: int, **changes: Any) -> Path:
    write_bundle(folder, card(**changes), network(seed), "# tiny\n")
    return folder


def test_one_folder_is_that_bundle(tmp_path: Path) -> None:
    assert read_ensemble([write(tmp_path, 1)]).card == read_bundle(tmp_path).card


def test_an_ensemble_says_who_is_in_it(tmp_path: Path) -> None:
    folders = [write(tmp_path / str(seed), seed, version=f"1.{seed}", statement=f"Number {seed}.") for seed in (2, 1)]
    hashes = sorted(read_bundle(folder).card.sha256 for folder in folders)
    model = read_ensemble(folders)
    assert (model.card.name, model.card.version, model.card.members) == ("threshold x2", "1.1 + 1.2", 2)
    assert model.card.sha256 == hashlib.sha256(f"{hashes[0]}\n{hashes[1]}\n".encode()).hexdigest()
    assert model.card.statement == "Number 2."
    assert len(model.networks) == 2


def test_the_order_of_the_folders_changes_neither_identity_nor_sum(tmp_path: Path) -> None:
    folders = [write(tmp_path / str(seed), seed, name=f"tiny {seed}") for seed in (1, 2, 3)]
    one, other = read_ensemble(folders), read_ensemble(folders[::-1])
    assert one.card == other.card
    with torch.inference_mode():
        for mine, its in zip(one.networks, other.networks, strict=True):
            assert torch.equal(mine(IMAGE), its(IMAGE))


@pytest.mark.parametrize(
    "changes",
    [
        {"orientation": "SAR"},
        {"spacing_mm": (2.0, 1.0, 1.0)},
        {"window_hu": (-100.0, 200.0)},
        {"scaled_to": (-1.0, 1.0)},
        {"patch": (8, 8, 8)},
        {"overlap": 0.5},
        {"labels": {0: "background", 1: "spleen"}},
        {"convention": "nnunet"},
        {"flips": "L"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_members_that_need_something_else_are_refused_by_the_field(tmp_path: Path, changes: dict[str, Any]) -> None:
    folders = [write(tmp_path / "one", 1), write(tmp_path / "other", 2, **changes)]
    with pytest.raises(BadBundle, match=f"other: {next(iter(changes))} .*is not that of .*one"):
        read_ensemble(folders)


def test_a_member_counts_once(tmp_path: Path) -> None:
    folders = [write(tmp_path / "one", 1), write(tmp_path / "twin", 1)]
    with pytest.raises(BadBundle, match=r"twin: the same weights as .*one"):
        read_ensemble(folders)


def test_the_most_slices_that_a_member_needs(tmp_path: Path) -> None:
    folders = [write(tmp_path / str(seed), seed, minimum_slices=10 * seed) for seed in (1, 2)]
    assert read_ensemble(folders).card.minimum_slices == 20


def test_a_bundle_holds_several_networks(tmp_path: Path) -> None:
    members = [network(seed) for seed in (1, 2, 3)]
    written = write_bundle(tmp_path, card(), members, "# folds\n")
    content = b"".join((tmp_path / "models" / name).read_bytes() for name in ("model.pt", "model_1.pt", "model_2.pt"))
    assert (written.members, written.sha256) == (3, hashlib.sha256(content).hexdigest())
    model = read_bundle(tmp_path)
    assert model.card == written
    with torch.inference_mode():
        for kept, member in zip(model.networks, members, strict=True):
            assert torch.equal(kept(IMAGE), member(IMAGE))


def test_what_is_mirrored_has_no_configuration_that_would_look_once(tmp_path: Path) -> None:
    write(tmp_path, 1)
    assert (tmp_path / INFERENCE).exists()
    write(tmp_path, 1, flips="L")
    assert not (tmp_path / INFERENCE).exists()


@pytest.mark.parametrize(
    ("name", "message"), [("model_2.pt", "model_2.pt: No such file"), ("model_1.pt", "SHA-256 is")]
)
def test_every_member_of_a_bundle_is_verified(tmp_path: Path, name: str, message: str) -> None:
    write_bundle(tmp_path, card(), [network(seed) for seed in (1, 2, 3)], "# folds\n")
    path = tmp_path / "models" / name
    path.unlink()
    if name == "model_1.pt":
        path.write_bytes((tmp_path / "models" / "model.pt").read_bytes())
    with pytest.raises(BadBundle, match=message):
        read_bundle(tmp_path)


def test_bundles_of_several_networks_make_an_ensemble_of_all(tmp_path: Path) -> None:
    write_bundle(tmp_path / "folds", card(), [network(seed) for seed in (1, 2)], "# folds\n")
    model = read_ensemble([tmp_path / "folds", write(tmp_path / "one", 3)])
    assert (model.card.name, model.card.members, len(model.networks)) == ("threshold x2", 3, 3)


def test_flips_that_are_set_stand_in_the_version() -> None:
    model = threshold_model()
    assert mirror(model, "") is model
    mirrored = mirror(model, "LP")
    assert (mirrored.card.flips, mirrored.card.version) == ("LP", "1+flips.LP")
    own = threshold_model(flips="LP")
    assert mirror(own, "LP") is own
    assert mirror(own, "").card.version == "1+flips.none"


@pytest.mark.parametrize("flips", ["PL", "LL", "A", "lp"])
def test_flips_are_the_three_axes_in_order(flips: str) -> None:
    with pytest.raises(ValueError, match=f"flips '{flips}'"):
        mirror(threshold_model(), flips)


def test_a_card_names_its_axes() -> None:
    assert [replace(CARD, orientation="ARI").axis(letter) for letter in "LPS"] == [1, 0, 2]


@pytest.mark.parametrize("members", [0, 2.0, "2"])
def test_members_are_a_whole_number(members: Any) -> None:
    with pytest.raises(ValueError, match="members"):
        replace(CARD, members=members)


def test_a_model_has_as_many_networks_as_its_card_says() -> None:
    with pytest.raises(ValueError, match="1 networks where the card speaks of 2"):
        Model(replace(CARD, members=2), threshold_model().network)

"""Which models the commands of judging take: one bundle or several, as they are or with flips."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from models.bundle import BadBundle
from models.nnunet import read_nnunet
from tests.fakes import write_flat_bundle
from tests.nnunet_folders import write_folder
from training.evaluate import add_model_arguments, read_model


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    return parser.parse_args(arguments)


def test_several_bundles_are_judged_as_one_with_flips(tmp_path: Path) -> None:
    one, other = (str(write_flat_bundle(tmp_path / f"{hu}", hu)) for hu in (90, 95))
    given = parse("--bundle", one, "--bundle", other, "--flips", "LP")
    card = read_model(given.bundle, flips=given.flips).card
    assert (card.name, card.version, card.members) == ("threshold x2", "1+flips.LP", 2)


def test_one_bundle_is_judged_as_it_is(tmp_path: Path) -> None:
    given = parse("--bundle", str(write_flat_bundle(tmp_path, flips="S")))
    card = read_model(given.bundle, flips=given.flips).card
    assert (card.name, card.version, card.flips) == ("threshold", "1", "S")


def test_nnunet_folders_are_taken_too(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    assert read_model([folder]).card == read_nnunet(folder).card
    with pytest.raises(BadBundle, match="is not that of"):
        read_model([write_flat_bundle(tmp_path / "flat"), folder])

"""Several bundles as one model, and a model that looks at mirrored images too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from models.bundle import BadBundle, Model, read_bundle
from models.card import Card

_OWN = {"name", "version", "sha256", "statement", "minimum_slices", "network", "network_arguments", "members"}
"""Fields of the card that members may differ in. By the others they see one tensor, and their labels are the same."""


def read_ensemble(folders: Sequence[Path], device: str = "cpu") -> Model:
    """Read bundles as one model and put its networks on the device; one folder is that bundle. Raises BadBundle."""
    return unite([(folder, read_bundle(folder, device)) for folder in folders])


def unite(models: Sequence[tuple[Path, Model]]) -> Model:
    """Models, with the folders they came from, as one that averages their probabilities; every network counts the same.

    Its SHA-256 is of theirs, sorted, a line each: their order changes no number. Its name and version are of all, its
    statement and network those of the first. Raises BadBundle where two differ in what they need, or are the same.
    """
    if len(models) == 1:
        return models[0][1]
    first_folder, first = models[0]
    for number, (folder, model) in enumerate(models):
        _compare((first_folder, first.card), (folder, model.card))
        if twin := next((other for other, one in models[:number] if one.card.sha256 == model.card.sha256), None):
            raise BadBundle(f"{folder}: the same weights as {twin}")
    # In one order, because sums of floating point numbers depend on it.
    ordered = sorted((model for _, model in models), key=lambda model: model.card.sha256)
    network, *others = (network for model in ordered for network in model.networks)
    return Model(_card(first.card, [model.card for model in ordered]), network, tuple(others))


def mirror(model: Model, flips: str) -> Model:
    """The model with these `Card.flips` in the place of its own; its version then says so, as "1.0+flips.LP".

    Raises ValueError for letters that are none.
    """
    if flips == model.card.flips:
        return model
    version = f"{model.card.version}+flips.{flips or 'none'}"
    return replace(model, card=replace(model.card, flips=flips, version=version))


def _compare(one: tuple[Path, Card], other: tuple[Path, Card]) -> None:
    for name in (field.name for field in fields(Card) if field.name not in _OWN):
        mine, its = (getattr(card, name) for _, card in (one, other))
        if mine != its:
            raise BadBundle(
                f"{other[0]}: {name} {its} is not that of {one[0]}, {mine}; no ensemble can be made of them"
            )


def _card(first: Card, cards: Sequence[Card]) -> Card:
    digest = hashlib.sha256("".join(f"{card.sha256}\n" for card in cards).encode())
    names, versions = sorted({card.name for card in cards}), sorted({card.version for card in cards})
    return replace(
        first,
        name=f"{' + '.join(names)} x{len(cards)}",
        version=" + ".join(versions),
        sha256=digest.hexdigest(),
        minimum_slices=max(card.minimum_slices for card in cards),
        members=sum(card.members for card in cards),
    )

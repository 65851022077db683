"""A release -> a bundle in the models folder: fetched, checked, unpacked, and there in one move.

All that is not yet a bundle has a name that begins with a dot; what a crash leaves of it, the next call goes on with.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import nn

from models.archives import ensure_room, unpack
from models.bundle import BadBundle, blaming, new_bundle, write_bundle
from models.card import Card
from models.configs import Origin
from models.download import Progress, bytes_here, fetch
from models.nnunet import Choice, read_nnunet
from models.releases import Release

SOURCE = Path("SOURCE.json")
"""Of a bundle: what was installed, from where, and by which hash."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a release is taken from, and by what it is known.

    url: an address other than its authors'. file: an archive that is here already. sha256: of the archive, in place of
    the size and the hash that the release is known by; lower-case hex.
    """

    url: str | None = None
    file: Path | None = None
    sha256: str | None = None


class WrongContent(BadBundle):
    """An archive that is not the one asked for."""


def install(release: Release, folder: Path, source: Source, progress: Progress) -> Card:
    """Make the bundle `folder / release.name`; returns its card.

    Raises BadBundle, also where there is one already or the disk has no room, and NotFetched.
    """
    bundle, archive = folder / release.name, source.file or folder / f".{release.name}.zip"
    if bundle.exists():
        raise BadBundle(f"{bundle}: exists already; remove it to install it anew")
    with blaming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # The archive, its content, and the bundle, which is smaller than that.
    ensure_room(folder, 3 * release.size - bytes_here(archive))
    if source.file:
        return _make_bundle(archive, bundle, release, source)
    if not archive.exists():
        fetch(source.url or release.url, archive, None if source.sha256 else release.size, progress)
    try:
        card = _make_bundle(archive, bundle, release, source)
    except WrongContent:
        archive.unlink()
        raise
    archive.unlink()
    return card


def _make_bundle(archive: Path, bundle: Path, release: Release, source: Source) -> Card:
    digest = _check(archive, release, source.sha256)
    unpacked = bundle.with_name(f".{bundle.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        unpack(archive, unpacked)
        choice = Choice(target=release.target, folds=release.folds, orientation=release.orientation)
        model = read_nnunet(unpacked, choice)
        with new_bundle(bundle) as partial:
            card = replace(model.card, statement=release.statement)
            origin = Origin(authors=release.authors, copyright=f"{release.authors}; {release.licence}")
            card = write_bundle(partial, card, cast(nn.Module, model.network), _model_card(release, model.card), origin)
            record = _record(archive, digest, release, source)
            (partial / SOURCE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return card


def _check(archive: Path, release: Release, sha256: str | None) -> str:
    """The SHA-256 of the archive, which is as it should be; raises WrongContent."""
    with blaming(archive), archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    if sha256 is None and size != release.size:
        raise WrongContent(f"{archive}: {size:,} bytes; the release has {release.size:,}")
    if digest != (sha256 or release.sha256):
        whose = "--sha256" if sha256 else f"{release.sha256}, as {release.sha256_from} has it"
        raise WrongContent(f"{archive}: SHA-256 is {digest}, not {whose}")
    return digest


def _record(archive: Path, digest: str, release: Release, source: Source) -> dict[str, str | int]:
    return {
        "release": release.name,
        "from": source.file.name if source.file else source.url or release.url,
        "authors": release.authors,
        "citation": release.citation,
        "licence": release.licence,
        "licence_url": release.licence_url,
        "size": archive.stat().st_size,
        "sha256": digest,
        "sha256_from": "whoever installed it" if source.sha256 else release.sha256_from,
    }


def _model_card(release: Release, card: Card) -> str:
    lines = [
        f"# {card.name}",
        "",
        release.statement,
        "",
        f"- Release: {release.name}, {release.about}; where it is from: `{SOURCE}`",
        f"- Authors: {release.authors}; please cite {release.citation}",
        f"- Licence: {release.licence}, {release.licence_url}",
        f"- Measures: {card.labels[card.target]}, one of {len(card.labels) - 1} labels",
        f"- SHA-256 of plans.json, dataset.json and checkpoints one after another: {card.sha256}",
    ]
    return "\n".join([*lines, ""])

"""The commands about models: which there are, whether they are whole, and where others come from."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from dicomnode.cli.console import Config, errors, output
from dicomnode.errors import Refused, Unavailable
from dicomnode.settings import CONFIG_VARIABLE, load
from dicomnode.settings_file import set_model
from models.releases import RELEASES, Release

# What imports PyTorch, which takes seconds, is imported by the commands that need it.

models = typer.Typer(help="The models: list, verify, import, pull, use.", no_args_is_help=True)


@models.command(name="list")
def list_models(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of bundles; those that ship and those pulled if not given.")
    ] = None,
    config: Config = None,
) -> None:
    """List the bundles in a folder; a star marks those that the settings name."""
    from models.bundle import METADATA, BadBundle, default_bundle, read_bundle

    settings, _ = load(config)
    used = {used.resolve() for used in settings.worker.bundles or (default_bundle(),)}
    table = Table("", "bundle", "model", "measures", "sha256", "statement")
    folders = [folder] if folder else [default_bundle().parent, settings.models_folder]
    # What begins with a dot is not yet a bundle.
    found = [path.parents[1] for place in folders for path in sorted(place.glob(f"[!.]*/{METADATA}"))]
    for bundle in found:
        mark = "*" if bundle.resolve() in used else ""
        try:
            card = read_bundle(bundle).card
        except BadBundle as error:
            table.add_row(mark, str(bundle), "", "", "", str(error))
            continue
        model = f"{card.name} {card.version}"
        table.add_row(mark, str(bundle), model, card.labels[card.target], card.sha256[:12], card.statement)
    if not found:
        raise Refused(f"{', '.join(map(str, folders))}: no bundles")
    output.print(table)


@models.command()
def verify(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle; what the settings name if not given.")] = None,
    config: Config = None,
) -> None:
    """Read a bundle as the node would: its weights must have the recorded hash and fit the network.

    Of several that the settings name, whether they make an ensemble.
    """
    from models.bundle import BadBundle, default_bundle
    from models.ensemble import read_ensemble

    settings, _ = load(config)
    folders = (bundle,) if bundle else settings.worker.bundles or (default_bundle(),)
    try:
        card = read_ensemble(folders).card
    except BadBundle as error:
        raise Refused(str(error)) from None
    names = ", ".join(str(folder) for folder in folders)
    output.print(
        f"{names}: {card.name} {card.version} measures {card.labels[card.target]}, sha256 {card.sha256}", markup=False
    )


@models.command(name="import")
def import_model(
    folder: Annotated[
        Path, typer.Argument(help="A folder of nnU-Net v2 (plans.json ...) or a bundle of MONAI's Model Zoo.")
    ],
    bundle: Annotated[Path, typer.Argument(help="The bundle to write; must not exist.")],
    target: Annotated[str, typer.Option(help="The label to measure, by its name.")] = "pancreas",
    fold: Annotated[
        list[str] | None, typer.Option(help="nnU-Net: a fold to use; repeatable. All numbered ones if not given.")
    ] = None,
    orientation: Annotated[
        str | None, typer.Option(help="nnU-Net: towards what the axes of the training images increase, e.g. SAR.")
    ] = None,
    mirroring: Annotated[
        bool, typer.Option(help="nnU-Net: average over mirrored images; up to eight times as slow.")
    ] = False,
) -> None:
    """Turn a folder of nnU-Net v2 or of MONAI's Model Zoo into a bundle that this node runs; nothing is executed."""
    from models.bundle import METADATA, BadBundle
    from models.nnunet import Choice, import_nnunet
    from models.zoo import import_zoo

    choice = Choice(target=target, folds=fold or (), orientation=orientation, mirroring=mirroring)
    is_nnunet = (folder / "plans.json").is_file()
    if not is_nnunet and not (folder / METADATA).is_file():
        raise Refused(f"{folder}: neither plans.json of nnU-Net v2 nor {METADATA} of a MONAI bundle is there")
    if not is_nnunet and choice != Choice(target=target):
        raise Refused(
            "--fold, --orientation and --mirroring are for folders of nnU-Net; a MONAI bundle says all itself"
        )
    try:
        card = import_nnunet(folder, bundle, choice) if is_nnunet else import_zoo(folder, bundle, target)
    except BadBundle as error:
        raise Refused(str(error)) from None
    output.print(f"{bundle}: {card.name}; to run it, set worker.model to this folder", markup=False)


@models.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"Which one: {', '.join(RELEASES)}.")],
    into: Annotated[
        Path | None, typer.Option(help="Folder for the bundle; `models` beside the archive folder if not given.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option("--from", metavar="FILE.zip", help="The release, fetched elsewhere: no network.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Another address to fetch it from, such as a mirror.")] = None,
    sha256: Annotated[
        str | None, typer.Option(help="What the archive must have, in place of the size and hash known here.")
    ] = None,
    config: Config = None,
) -> None:
    """Fetch a model from its authors' release and make a bundle of it; a broken download is gone on with.

    Proxies are those of the environment: https_proxy, http_proxy, no_proxy.
    """
    if name not in RELEASES:
        raise typer.BadParameter(f"{name!r} is unknown; there are {', '.join(RELEASES)}", param_hint="NAME")
    if archive and url:
        raise typer.BadParameter("the model comes from a file or from an address, not from both", param_hint="--url")
    if sha256 and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise typer.BadParameter("64 hexadecimal digits are needed", param_hint="--sha256")
    release, folder = RELEASES[name], into or load(config)[0].models_folder
    _introduce(release, url, archive)
    _install(release, folder, url, archive, sha256.lower() if sha256 else None)
    checked = "you gave" if sha256 else f"{release.sha256_from} recorded; its authors publish none to check against"
    output.print(f"The archive has the SHA-256 that {checked}.", markup=False)
    output.print(f"To run it: dicomnode models use {folder / name}", markup=False)


def _introduce(release: Release, url: str | None, archive: Path | None) -> None:
    output.print(f"{release.name}: {release.about}", markup=False)
    output.print(f"  authors  {release.authors}", markup=False)
    output.print(f"  licence  {release.licence}, {release.licence_url}", markup=False)
    output.print(f"  cite     {release.citation}", markup=False)
    output.print(f"  from     {archive or url or release.url}", markup=False)
    output.print(f"  size     {release.size / 1e6:,.0f} MB", markup=False)


def _install(release: Release, folder: Path, url: str | None, archive: Path | None, sha256: str | None) -> None:
    from models.bundle import BadBundle
    from models.download import NotFetched
    from models.installation import Source, install

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
            task = progress.add_task("fetching", total=release.size, visible=archive is None)

            def tell(done: int, total: int) -> None:
                what = "fetching" if done < total else "unpacking"
                progress.update(task, completed=done, total=total, description=what)

            card = install(release, folder, Source(url=url, file=archive, sha256=sha256), tell)
    except BadBundle as error:
        raise Refused(str(error)) from None
    except NotFetched as error:
        raise Unavailable(f"{error}. Without a way out: fetch it elsewhere and give --from FILE.zip") from None
    output.print(f"{folder / release.name}: {card.name} measures {card.labels[card.target]}", markup=False)


@models.command()
def use(
    bundle: Annotated[Path, typer.Argument(help="The bundle.", exists=True, file_okay=False)],
    config: Config = None,
) -> None:
    """Verify a bundle and make it the node's model: writes worker.model in the settings file, nothing else of it."""
    from models.bundle import BadBundle, read_bundle

    if config is None or not config.is_file():
        what = f"{config}: there is no such settings file" if config else "no settings file is named"
        raise Refused(
            f"{what}; name it by --config or {CONFIG_VARIABLE}. A new one needs no more than the lines\n"
            f"[worker]\nmodel = {json.dumps(str(bundle.resolve()))}"
        )
    before, _ = load(config)
    try:
        card = read_bundle(bundle).card
    except BadBundle as error:
        raise Refused(str(error)) from None
    set_model(config, bundle)
    after, _ = load(config)
    was = ", ".join(map(str, before.worker.bundles)) or "unset: the bundle that ships"
    output.print(f"{config}: worker.model is {bundle.resolve()}; it was {was}", markup=False)
    if after.worker.bundles != (bundle.resolve(),):
        raise Refused("DICOMNODE_WORKER__MODEL is set, and wins over the file: unset it")
    output.print(f"{card.name} {card.version} measures {card.labels[card.target]}. {card.statement}", markup=False)
    output.print("Restart the node to run it. Volumes of different models are not compared.", markup=False)

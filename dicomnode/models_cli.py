"""The commands about models: which there are, whether they are whole, and where others come from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dicomnode.errors import Refused
from dicomnode.settings import CONFIG_VARIABLE, load

# What imports PyTorch, which takes seconds, is imported by the commands that need it.

models = typer.Typer(help="The models: list, verify, import.", no_args_is_help=True)
output = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 240)

Config = Annotated[
    Path | None, typer.Option("--config", envvar=CONFIG_VARIABLE, help="Settings file (TOML).", dir_okay=False)
]


@models.command(name="list")
def list_models(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of bundles; the bundles that ship if not given.")
    ] = None,
    config: Config = None,
) -> None:
    """List the bundles in a folder; a star marks those that the settings name."""
    from models.bundle import METADATA, BadBundle, default_bundle, read_bundle

    settings, _ = load(config)
    used = {used.resolve() for used in settings.worker.bundles or (default_bundle(),)}
    table = Table("", "bundle", "model", "measures", "sha256", "statement")
    found = sorted(path.parents[1] for path in (folder or default_bundle().parent).glob(f"*/{METADATA}"))
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
        raise Refused(f"{folder or default_bundle().parent}: no bundles")
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

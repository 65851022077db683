"""The command that lists what peers were refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dicomnode.console import AsJson, Config, output, reading, short
from dicomnode.settings import load
from dicomnode.store import watch


def list_refusals(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 50,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List what peers were refused, the newest first."""
    settings, _ = load(config)
    with reading(settings) as connection:
        refusals = watch.list_refusals(connection, limit)
    if as_json:
        output.print_json(json.dumps([asdict(refusal) for refusal in refusals], default=str))
        return
    table = Table("at (UTC)", "kind", "caller", "address", "reason")
    for refusal in refusals:
        # A title may look like markup of the console, which tables would follow.
        cells = (refusal.kind, refusal.calling_ae, refusal.address, refusal.reason)
        table.add_row(short(refusal.at), *(escape(cell) for cell in cells))
    output.print(table)

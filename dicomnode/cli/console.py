"""What the commands share: where they print, and the options that most of them take."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dicomnode.database import Connection, open_database
from dicomnode.settings import CONFIG_VARIABLE, Settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

errors = Console(stderr=True, soft_wrap=True, highlight=False)
# Into a pipe or a file no table is folded; on a terminal it takes the width there is.
output = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 240)

Config = Annotated[
    Path | None, typer.Option("--config", envvar=CONFIG_VARIABLE, help="Settings file (TOML).", dir_okay=False)
]
Limit = Annotated[int, typer.Option(min=1, help="How many of the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """A look into the node's database."""
    database = open_database(settings.database_url)
    with database.read() as connection:
        yield connection
    database.close()


@contextmanager
def writing(settings: Settings) -> Iterator[Connection]:
    """A change in the node's database, committed at the end."""
    database = open_database(settings.database_url)
    with database.begin() as connection:
        yield connection
    database.close()


def print_json(listed: Sequence[DataclassInstance]) -> None:
    """What is listed as JSON; times as text."""
    output.print_json(json.dumps([asdict(one) for one in listed], default=str))


def short(moment: datetime | None) -> str:
    """A time as tables show it, or nothing."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def tail(uid: str) -> str:
    """The end of a UID, by which people tell them apart."""
    return uid if len(uid) <= 20 else f"…{uid[-19:]}"

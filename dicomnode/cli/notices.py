"""The command about notices."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dicomnode.cli.console import AsJson, Config, Limit, errors, output, print_json, reading, short
from dicomnode.errors import Refused, Unavailable
from dicomnode.herald import Recipient, recipients
from dicomnode.node import utc_now
from dicomnode.notices import compose, message_key
from dicomnode.settings import load
from dicomnode.store import notices


def notify(
    test: Annotated[bool, typer.Option("--test", help="Tell everyone in the settings that this is a test.")] = False,
    limit: Limit = 50,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List what was told, and what waits to be; --test: try every way, exit code 1 where one fails."""
    settings, _ = load(config)
    if test:
        _test(recipients(settings))
        return
    with reading(settings) as connection:
        listed = notices.list_notices(connection, limit)
    if as_json:
        print_json(listed)
        return
    table = Table("at (UTC)", "event", "to", "state", "tries", "next (UTC)", "what became of it")
    for one in listed:
        due = short(one.not_before) if one.state == "pending" else ""
        cells = [short(one.created_at), one.topic, one.notification, one.state, str(one.attempts), due, one.outcome]
        table.add_row(*map(escape, cells))
    output.print(table if listed else "there are no notices")


def _test(everyone: list[Recipient]) -> None:
    if not everyone:
        raise Refused("there are no [[notifications]] in the settings")
    failed = False
    for one in everyone:
        now, settings = utc_now(), one.notification
        at = now.isoformat(timespec="seconds")
        fields = {"node": one.node, "event": "test", "at": at, "summary": "this is a test", "reason": ""}
        key = message_key(one.node, settings.name, "test", at)
        try:
            answer = one.channel.tell(compose(key, (settings.subject, settings.template), fields), now)
            output.print(f"{settings.name}: {answer}", markup=False)
        except Unavailable as error:
            failed = True
            errors.print(f"{settings.name}: {error}", markup=False)
    if failed:
        raise typer.Exit(1)

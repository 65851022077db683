"""The commands about deliveries: where the results are on their way, and how to send them once more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from pydicom.uid import UID
from rich.markup import escape
from rich.table import Table

from dicomnode.cli.console import AsJson, Config, Limit, output, print_json, reading, short, tail, writing
from dicomnode.deliveries import STUCK, DeliveryState
from dicomnode.errors import Refused
from dicomnode.node import utc_now
from dicomnode.settings import load
from dicomnode.store import outbox
from dicomnode.store.outbox import ListedDelivery

deliveries = typer.Typer()

States = Annotated[list[DeliveryState] | None, typer.Option("--state", help="In this state; repeatable.")]
Destination = Annotated[str | None, typer.Option(help="To this destination, by its name in the settings.")]


@deliveries.command(name="deliveries")
def list_deliveries(
    state: States = None,
    destination: Destination = None,
    limit: Limit = 50,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the newest deliveries: one result on its way to one destination."""
    settings, _ = load(config)
    with reading(settings) as connection:
        listed = outbox.list_deliveries(connection, limit, states=state or (), destination=destination)
    if as_json:
        print_json(listed)
        return
    table = Table("id", "state", "destination", "job", "object", "tries", "next (UTC)", "reason")
    for one in listed:
        kind = f"{UID(one.sop_class_uid).name} {tail(one.sop_instance_uid)}"
        cells = (one.id, one.state, one.destination, one.job_id, kind, one.attempts, short(_next(one)), one.reason)
        table.add_row(*(escape(str(cell)) for cell in cells))
    output.print(table)


@deliveries.command()
def retry(
    delivery_id: Annotated[int | None, typer.Argument(help="The delivery to send once more.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that are parked or failed, or in --state.")] = False,
    state: States = None,
    destination: Destination = None,
    config: Config = None,
) -> None:
    """Send results once more, at once and with all attempts forgotten."""
    if every == (delivery_id is not None):
        raise typer.BadParameter("give either an ID or --all")
    settings, _ = load(config)
    now = utc_now()
    with writing(settings) as connection:
        chosen: Sequence[int] = [] if delivery_id is None else [delivery_id]
        if every:
            states = state or STUCK
            listed = outbox.list_deliveries(connection, None, states=states, destination=destination)
            chosen = [one.id for one in listed if one.state != DeliveryState.SENDING]
        for one in chosen:
            outbox.requeue(connection, one, "by an operator", now)
    if not chosen:
        raise Refused("there is no such delivery")
    output.print(f"{len(chosen)} to be sent once more")


def _next(one: ListedDelivery) -> datetime | None:
    """When something is due: the next attempt, or asking for the commitment again."""
    return {DeliveryState.PENDING: one.not_before, DeliveryState.SENT: one.report_until}.get(DeliveryState(one.state))

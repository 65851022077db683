"""The command line. Exit code 0: done; 1: failed or refused, with the reason on stderr; 2: usage."""

from __future__ import annotations

import json
import re
import signal
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.progress import Progress
from rich.table import Table

from dicomnode import dimse
from dicomnode.cli.accounts import web_user
from dicomnode.cli.console import AsJson, Config, Limit, errors, output, reading, short, tail, writing
from dicomnode.cli.deliveries import deliveries
from dicomnode.cli.models import models
from dicomnode.cli.notices import notify
from dicomnode.cli.patients import patients
from dicomnode.cli.pulls import pull_commands
from dicomnode.cli.upkeep import upkeep
from dicomnode.deliveries import DeliveryEvent
from dicomnode.discretion import set_up_logging
from dicomnode.errors import Misconfigured, Refused, Unavailable
from dicomnode.files import find_dicom
from dicomnode.inspection import inspect
from dicomnode.lifecycle import IllegalMove
from dicomnode.node import EXIT_MISCONFIGURED, Actor, Node, utc_now
from dicomnode.sections import TLSSettings
from dicomnode.selection import Selection
from dicomnode.settings import load
from dicomnode.store import Unknown, outbox, queue

app = typer.Typer(
    name="dicomnode",
    help="A DICOM node that measures the pancreas on CT and answers with SEG and SR. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
rules = typer.Typer(help="The rules that say which series are analysed.", no_args_is_help=True)
app.add_typer(rules, name="rules")
app.add_typer(models, name="models")
app.add_typer(deliveries)
app.add_typer(pull_commands)
app.command()(notify)
app.command()(web_user)
app.add_typer(upkeep)
app.add_typer(patients)
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS, with the certificate of [tls].")]
PeerText = Annotated[str, typer.Argument(metavar="AET@HOST:PORT", help="The application entity to ask.")]


def main() -> None:
    """Run the command line."""
    warnings.simplefilter("ignore", UserWarning)  # pydicom's quote the values they complain of, a patient's among them
    try:
        app()
    except (Refused, Unavailable, Misconfigured, Unknown, IllegalMove) as error:
        errors.print(f"dicomnode: {error}", markup=False)
        is_child = "--child-of" in sys.argv and isinstance(error, Misconfigured)
        sys.exit(EXIT_MISCONFIGURED if is_child else 1)


@app.command()
def serve(
    config: Config = None,
    only: Annotated[str | None, typer.Option(help=f"Only these actors, by comma: {', '.join(Actor)}.")] = None,
    child_of: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the node until SIGTERM or Ctrl-C."""
    settings, _ = load(config)
    actors = _actors(only)
    set_up_logging()
    node = Node(settings, config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: node.stop())
    if child_of is not None:
        (actor,) = actors
        node.serve_child(actor, child_of)
    else:
        node.serve(actors)


def _actors(only: str | None) -> frozenset[Actor]:
    if only is None:
        return frozenset(Actor)
    try:
        return frozenset(Actor(name.strip()) for name in only.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{error}; the actors are {', '.join(Actor)}", param_hint="--only") from None


@app.command()
def analyse(
    path: Annotated[Path, typer.Argument(help="A folder of DICOM files, or a NIfTI file.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if missing.")],
    config: Config = None,
) -> None:
    """Measure one series without a PACS: writes seg.dcm, sr.dcm, findings.json, overlay.png and pancreas.nii.gz.

    A NIfTI file has no DICOM identity, so that no SEG and no SR can be made from it.
    """
    settings, _ = load(config)
    # Imported here: PyTorch takes seconds that the other commands need not wait for.
    from dicomnode.offline import measure_path

    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("measuring", total=1.0)
        report = measure_path(path, out, settings.worker, lambda share: progress.update(task, completed=share))
    output.print_json(json.dumps(report))


@app.command()
def send(
    path: Annotated[Path, typer.Argument(help="A DICOM file, or a folder of them.")],
    to: Annotated[str, typer.Option(metavar="AET@HOST:PORT", help="The application entity to send to.")],
    tls: Tls = False,
    config: Config = None,
) -> None:
    """Send DICOM files by C-STORE; each must be accepted by a status of its own."""
    settings, _ = load(config)
    peer, files = _peer(to, settings.tls if tls else None), find_dicom(path)
    failed = 0
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        attempts = dimse.send(peer, settings.listener.ae_title, files, settings.courier.timeout_seconds)
        for file, outcome in progress.track(attempts, total=len(files), description="sending"):
            if outcome.event is not DeliveryEvent.ACCEPT:
                failed += 1
                errors.print(f"{file.name}: {outcome.reason}", markup=False)
    output.print(f"{len(files) - failed} of {len(files)} instances sent to {peer}")
    if failed:
        raise typer.Exit(1)


@app.command()
def echo(peer: PeerText, tls: Tls = False, config: Config = None) -> None:
    """Ask an application entity for a C-ECHO."""
    settings, _ = load(config)
    asked = _peer(peer, settings.tls if tls else None)
    dimse.echo(asked, settings.listener.ae_title, settings.courier.timeout_seconds)
    output.print(f"{asked} answers")


def _peer(text: str, tls: TLSSettings | None) -> dimse.Peer:
    security = dimse.client_context(tls, utc_now()) if tls else None
    try:
        return dimse.parse_peer(text, security)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def jobs(
    job_id: Annotated[int | None, typer.Argument(help="One job, with its timeline.")] = None,
    limit: Limit = 50,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs, or one job with every move it made."""
    settings, _ = load(config)
    with reading(settings) as connection:
        listed = queue.list_jobs(connection, limit) if job_id is None else [queue.job(connection, job_id)]
        sent = outbox.delivery_states(connection, [job.id for job in listed])
        moves = [] if job_id is None else queue.timeline(connection, job_id)
    rows = [{**asdict(job), "deliveries": sent.get(job.id, {})} for job in listed]
    if as_json:
        content: Any = rows if job_id is None else {**rows[0], "timeline": [asdict(entry) for entry in moves]}
        output.print_json(json.dumps(content, default=str))
        return
    _print_jobs(rows)
    if moves:
        table = Table("at (UTC)", "event", "state", "note")
        for entry in moves:
            table.add_row(short(entry.at), entry.event, entry.state, entry.note)
        output.print(table)


def _print_jobs(rows: list[dict[str, Any]]) -> None:
    table = Table("job", "series", "rev", "images", "state", "tries", "updated (UTC)", "result or reason", "deliveries")
    for row in rows:
        sent = ", ".join(f"{count} {state}" for state, count in sorted(row["deliveries"].items()))
        cells = [row["id"], tail(row["series_instance_uid"]), row["revision"], row["instance_count"], row["state"]]
        cells += [row["attempts"], short(row["updated_at"]), row["reason"], sent]
        table.add_row(*(str(cell) for cell in cells))
    output.print(table)


@app.command()
def requeue(
    job_id: Annotated[int, typer.Argument(help="The job to run again.")],
    config: Config = None,
) -> None:
    """Run an ended job again; the same series and model make the same objects."""
    settings, _ = load(config)
    with writing(settings) as connection:
        job = queue.requeue(connection, job_id, utc_now())
        outbox.cancel_superseded(connection, job.series_instance_uid, utc_now())
    output.print(f"job {job.id} is {job.state}")


@app.command(name="settings")
def show_settings(config: Config = None, as_json: AsJson = False) -> None:
    """Print every setting in force, and where it came from."""
    _, effective = load(config)
    rows = [(entry.key, _printable(entry.value), entry.origin) for entry in effective]
    if as_json:
        output.print_json(json.dumps([dict(zip(("key", "value", "origin"), row, strict=True)) for row in rows]))
        return
    table = Table("setting", "value", "from")
    for key, value, origin in rows:
        table.add_row(key, "" if value is None else str(value), origin)
    output.print(table)


@rules.command(name="test")
def explain_rules(
    path: Annotated[Path, typer.Argument(help="A folder with any number of studies and series, or a DICOM file.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Explain for each series below a folder why the node would or would not analyse it; exit code 1: none.

    It shows SeriesDescription, but no name and no ID of a patient.
    """
    settings, _ = load(config)
    found = inspect(path, Selection.of(settings))
    if as_json:
        counts = {"files_not_dicom": found.not_dicom, "files_unreadable": found.unreadable}
        output.print_json(json.dumps({**counts, "series": [series.describe() for series in found.series]}))
    else:
        for line in (line for series in found.series for line in series.lines()):
            output.print(line, markup=False)
        output.print(f"{found.not_dicom} files are not DICOM, {found.unreadable} cannot be read")
    if all(series.verdict.reason for series in found.series):
        raise typer.Exit(1)


def _printable(value: Any) -> Any:
    """The value as JSON knows it; a password inside a URL is not shown."""
    if isinstance(value, tuple):
        return [_printable(item) for item in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Path):
        return str(value)
    return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1***@", value) if isinstance(value, str) else value

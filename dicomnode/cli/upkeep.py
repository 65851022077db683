"""The commands of upkeep: doctor, backup, alarms, refusals."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dicomnode import backup as backups
from dicomnode.archive import Archive
from dicomnode.auditor import Auditor
from dicomnode.backup import FileMode
from dicomnode.cli.console import AsJson, Config, Limit, errors, output, print_json, reading, short
from dicomnode.database import open_database
from dicomnode.doctor import Level, Visit, examine, examine_settings
from dicomnode.node import utc_now
from dicomnode.settings import load
from dicomnode.store import subjects, watch

upkeep = typer.Typer()

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILURE: "bold red"}


@upkeep.command()
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its SHA-256.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check everything that the node needs, and say what to do; exit code 1: something fails.

    It shows no patient's data.
    """
    settings, finding = examine_settings(config)
    findings = [finding]
    if settings is not None:
        findings += examine(Visit(settings, utc_now(), deep))
    if as_json:
        output.print_json(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            output.print(Text(f"{finding.level:<8}", _STYLES[finding.level]), f"{finding.check}:", end=" ")
            output.print(finding.text, markup=False)
            if finding.advice:
                output.print(f"         {finding.advice}", markup=False)
    if any(finding.level is Level.FAILURE for finding in findings):
        raise typer.Exit(1)


@upkeep.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where backups are kept; each gets a folder named by its time.")],
    files: Annotated[FileMode, typer.Option(help="What becomes of the archive's files.")] = FileMode.NONE,
    config: Config = None,
) -> None:
    """Back up the database, an index of the archive and perhaps its files, while the node runs.

    The backup holds identifiable data. Exit code 1 where files are missing or damaged; the rest is written.
    """
    settings, _ = load(config)
    database = open_database(settings.database_url)
    archive = Archive(settings.archive.path, int(settings.archive.reserve_gb * 1e9))
    auditor = Auditor(settings, database, utc_now)
    made, content = backups.back_up(database, archive, folder, files, utc_now())
    with database.read() as connection:
        auditor.exported(getpass.getuser(), made.resolve().as_uri(), subjects.everything(connection))
    database.close()
    what = "listed" if files is FileMode.NONE else "kept"
    output.print(f"{made}: database verified, {content.files} files {what}, {content.size_bytes / 1e9:.2f} GB")
    for path in content.missing:
        errors.print(f"{path}: missing", markup=False)
    for path in content.damaged:
        errors.print(f"{path}: damaged", markup=False)
    if content.missing or content.damaged:
        raise typer.Exit(1)


@upkeep.command()
def alarms(
    every: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    limit: Limit = 50,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the alarms that are on: what needs a person."""
    settings, _ = load(config)
    with reading(settings) as connection:
        listed = watch.list_alarms(connection, limit, only_on=not every)
    if as_json:
        print_json(listed)
        return
    table = Table("raised (UTC)", "cleared (UTC)", "kind", "about", "reason")
    for alarm in listed:
        cells = [short(alarm.raised_at), short(alarm.cleared_at), alarm.kind, alarm.subject, alarm.reason]
        table.add_row(*map(escape, cells))
    output.print(table if listed else "no alarm is on")


@upkeep.command()
def refusals(
    limit: Limit = 50,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List what peers were refused, the newest first."""
    settings, _ = load(config)
    with reading(settings) as connection:
        listed = watch.list_refusals(connection, limit)
    if as_json:
        print_json(listed)
        return
    table = Table("at (UTC)", "kind", "caller", "address", "reason")
    for refusal in listed:
        # A title may look like markup of the console, which tables would follow.
        cells = (refusal.kind, refusal.calling_ae, refusal.address, refusal.reason)
        table.add_row(short(refusal.at), *(escape(cell) for cell in cells))
    output.print(table)

"""The commands about pulling: find series in an archive and fetch them, and what the rules have found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from dicomnode.archive import Archive
from dicomnode.auditor import Auditor
from dicomnode.cli.console import AsJson, Config, Limit, errors, output, print_json, reading, short, tail, writing
from dicomnode.database import Database, open_database
from dicomnode.errors import Misconfigured, Refused, Unavailable
from dicomnode.node import utc_now
from dicomnode.pulling import Filters, FoundSeries, FoundStudy, PullState, Query, is_whole_here
from dicomnode.sections import Pattern
from dicomnode.settings import Settings, load
from dicomnode.store import pulls

if TYPE_CHECKING:
    from dicomnode.sources import Source

pull_commands = typer.Typer()

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y%m%d"], help="Study Date, included.")]
Text = Annotated[str | None, typer.Option(help="Regular expression found in it, in capitals or not.")]


@dataclass
class _Line:
    """A series that was found. here: how many of its instances came, removed ones too. outcome: of fetching it."""

    study: FoundStudy
    series: FoundSeries
    here: int
    outcome: str = ""
    has_failed: bool = False

    @property
    def is_whole(self) -> bool:
        return is_whole_here(self.here, self.series)

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        study = {name: getattr(self.study, name) for name in ("patient_id", "accession_number")}
        about = {"study_date": self.study.date, "study_description": self.study.description}
        became = {"here": self.here, "outcome": self.outcome, "failed": self.has_failed}
        return {**study, **about, **asdict(self.series), **became}


@pull_commands.command()
def pull(
    source: Annotated[str, typer.Argument(help="Name of a source in the settings.")],
    patient: Annotated[str, typer.Option(help="PatientID.")] = "",
    accession: Annotated[str, typer.Option(help="AccessionNumber.")] = "",
    study: Annotated[str, typer.Option(help="StudyInstanceUID.")] = "",
    since: Day = None,
    until: Day = None,
    modality: Annotated[str, typer.Option(help="Modality; empty: any.")] = "CT",
    study_description: Text = None,
    series_description: Text = None,
    at_most: Annotated[int, typer.Option(min=1, help="Studies.")] = 100,
    again: Annotated[bool, typer.Option("--again", help="Fetch also what is here already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is found.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Find series in an archive and fetch those that are not here; exit code 1: some could not be fetched.

    C-FIND or QIDO-RS, then C-MOVE, C-GET or WADO-RS, as the source says.
    """
    first, last = (day.date() if day else None for day in (since, until))
    query = Query(patient, accession, study, first, last, modality)
    if query == Query(modality=modality):
        raise typer.BadParameter("say what to look for: --patient, --accession, --study, --since or --until")
    filters = Filters(modality, _pattern(study_description), _pattern(series_description))
    settings, _ = load(config)
    with _opened(settings, source) as (archive, database):
        found = [
            _Line(one, series, _count(database, series)) for one, series in _find(archive, query, filters, at_most)
        ]
        if not dry_run:
            _fetch([line for line in found if again or not line.is_whole], archive, database)
    _print(found, as_json=as_json)
    if any(line.has_failed for line in found):
        raise typer.Exit(1)


@pull_commands.command(name="pulls")
def list_pulls(
    state: Annotated[list[PullState] | None, typer.Option("--state", help="In this state; repeatable.")] = None,
    limit: Limit = 50,
    retry: Annotated[bool, typer.Option("--retry", help="Try those that were given up once more.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the series that the pull rules of the settings found, and what became of each."""
    settings, _ = load(config)
    if retry:
        with writing(settings) as connection:
            count = pulls.retry(connection, utc_now())
        errors.print(f"{count} to be fetched once more")
    with reading(settings) as connection:
        listed = pulls.list_pulls(connection, limit, state or ())
    if as_json:
        print_json(listed)
        return
    table = Table("source", "rule", "series", "images", "state", "tries", "updated (UTC)", "next (UTC)", "reason")
    for one in listed:
        due = short(one.not_before) if one.state == PullState.WANTED else ""
        cells = (one.source, one.rule, tail(one.series_instance_uid), "" if one.instances is None else one.instances)
        more = (one.state, one.attempts, short(one.updated_at), due, one.reason)
        table.add_row(*(escape(str(cell)) for cell in (*cells, *more)))
    output.print(table)


def _pattern(text: str | None) -> str | None:
    try:
        return TypeAdapter(Pattern | None).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"]) from None


@contextmanager
def _opened(settings: Settings, name: str) -> Iterator[tuple[Source, Database]]:
    """The source of this name, and the database that what it sends is indexed in."""
    # Imported here: the decoders, by which it knows what it takes, cost time that the other commands need not wait for.
    from dicomnode.receiver import Receiver, conflict_status
    from dicomnode.sources import open_source

    described = next((one for one in settings.sources if one.name == name), None)
    if described is None:
        known = ", ".join(one.name for one in settings.sources) or "none"
        raise Misconfigured(f"there is no source {name!r}; [[sources]] has {known}")
    archive = Archive(settings.archive.path, int(settings.archive.reserve_gb * 1e9))
    with closing(open_database(settings.database_url)) as database:
        auditor = Auditor(settings, database, utc_now)
        receiver = Receiver(database, archive, utc_now, conflict_status=conflict_status(settings.listener))
        yield open_source(described, settings, receiver, auditor, utc_now()), database


def _find(
    archive: Source, query: Query, filters: Filters, at_most: int
) -> list[tuple[FoundStudy, FoundSeries]]:  # fmt: skip
    """What is wanted of the first so many studies; the association of the query is over when this returns."""
    studies = islice(filter(filters.choose, archive.find(query)), at_most)
    return [(study, series) for study in studies for series in filters.choose(study)]


def _count(database: Database, series: FoundSeries) -> int:
    with database.read() as connection:
        return pulls.count_here(connection, series.series_instance_uid)


def _fetch(lines: list[_Line], archive: Source, database: Database) -> None:
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        for line in progress.track(lines, description="fetching"):
            try:
                line.outcome = archive.fetch(line.series)
            except (Refused, Unavailable) as error:
                line.outcome, line.has_failed = str(error), True
            line.here = _count(database, line.series)
            if not line.here and not line.has_failed:
                line.outcome, line.has_failed = f"{line.outcome}, but none is here: is it sent to this node?", True


def _print(found: list[_Line], *, as_json: bool) -> None:
    if as_json:
        output.print_json(json.dumps([line.describe() for line in found]))
        return
    table = Table("study date", "study", "series", "modality", "description", "images", "here", "outcome")
    for line in found:
        series = line.series
        images = "" if series.instances is None else series.instances
        cells = (line.study.date, line.study.description, tail(series.series_instance_uid), series.modality)
        more = (
            series.description,
            images,
            line.here,
            line.outcome or ("here already" if line.is_whole else "not here"),
        )
        table.add_row(*(escape(str(cell)) for cell in (*cells, *more)))
    output.print(table)
    output.print(f"{len(found)} series; {sum(line.is_whole for line in found)} are whole here")

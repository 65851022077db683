"""The commands about patients: volumes, invalid results, merges, the cohort."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dicomnode import cohort as cohorts
from dicomnode import history
from dicomnode.arrivals import Patient
from dicomnode.auditor import Auditor
from dicomnode.cli.console import AsJson, Config, errors, output, reading, short
from dicomnode.database import Connection, open_database
from dicomnode.errors import Refused
from dicomnode.history import Change, Entry, Standing, VolumePoint
from dicomnode.node import utc_now
from dicomnode.settings import Settings, load
from dicomnode.store import history as store
from dicomnode.store import subjects
from dicomnode.store.history import Act
from dicomnode.store.subjects import Subject

patients = typer.Typer()

_ISSUER_HELP = "IssuerOfPatientID; the same ID of two issuers is two patients."
PatientID = Annotated[str, typer.Argument(metavar="PATIENT", help="PatientID.")]
Issuer = Annotated[str | None, typer.Option(help=_ISSUER_HELP)]
Reason = Annotated[str, typer.Option(help="Why; it is kept for ever.")]
By = Annotated[str | None, typer.Option(help="Who says so; the default is the name of the system's user.")]
JobId = Annotated[int, typer.Argument(metavar="JOB", help="The job whose result it is.")]


@patients.command()
def volumes(
    patient_id: PatientID,
    issuer: Issuer = None,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file.", dir_okay=False)] = None,
    png: Annotated[Path | None, typer.Option(help="Draw a picture.", dir_okay=False)] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show a patient's pancreas volumes in order of acquisition, with changes and what they may mean."""
    settings, _ = load(config)
    with reading(settings) as connection:
        patient = _patient(connection, patient_id, issuer)
        entries = history.timeline(store.points(connection, patient), settings.history)
    if not entries:
        raise Refused("nothing was measured for this patient")
    rows = [history.tabulate(entry) for entry in entries]
    if csv:
        cohorts.write_csv(rows, csv)
        _tell_export(settings, csv, [entry.point for entry in entries])
    if png:
        # Imported here: drawing takes a second that the other commands need not wait for.
        from dicomnode.picture import draw_history

        draw_history(entries, settings.history, png)
    if as_json:
        output.print_json(json.dumps(rows))
    elif not (csv or png):
        _print_history(entries, settings)


def _print_history(entries: list[Entry], settings: Settings) -> None:
    table = Table("acquired", "volume / mL", "since previous", "since first", "acquisition", "model", "remarks", "job")
    for entry in entries:
        point, conditions = entry.point, entry.point.conditions
        thickness = f"{conditions.thickness_mm:g} mm" if conditions.thickness_mm else ""
        made = " ".join(filter(None, (conditions.scanner, conditions.kernel, conditions.phase, thickness)))
        cells = [point.acquired_at, _volume(entry), _words(entry.previous), _words(entry.first), made]
        cells += [f"{point.model_name} {point.model_version}", "; ".join(_remarks(entry))]
        table.add_row(*map(escape, cells), point.source or str(point.job_id), style=_style(entry.standing))
    output.print(table)
    bands = settings.history
    errors.print(
        f"below {bands.within_percent:g} %: {history.Band.WITHIN.meaning}; above {bands.beyond_percent:g} %: "
        f"{history.Band.BEYOND.meaning}. {history.BANDS_SOURCE}",
        markup=False,
    )
    for cohort in history.REFERENCES:
        text = f"{cohort.cohort}: {cohort.mean_ml:g} mL, SD {cohort.sd_ml:g} mL ({cohort.source})"
        errors.print(text, markup=False)


def _style(standing: Standing) -> str:
    return "" if standing is Standing.COUNTS else "dim"


def _volume(entry: Entry) -> str:
    point = entry.point
    if point.volume_ml is None:
        return "not found"
    return f"{'≥ ' if point.is_lower_bound else ''}{point.volume_ml:.1f}"


def _words(change: Change | None) -> str:
    if change is None:
        return ""
    verdict = change.band.meaning if change.band else "not comparable"
    return f"{change.ml:+.1f} mL, {change.percent:+.0f} % in {change.days:.0f} days: {verdict}"


def _remarks(entry: Entry) -> Iterator[str]:
    point = entry.point
    if entry.standing is Standing.INVALID:
        yield f"invalid: {point.invalid}"
    elif entry.standing is not Standing.COUNTS:
        yield str(entry.standing)
    yield from point.flags
    if entry.previous:
        yield from entry.previous.reasons
        yield from entry.previous.differences


@patients.command()
def invalidate(job_id: JobId, reason: Reason, by: By = None, config: Config = None) -> None:
    """Mark what a job measured as invalid: it stays, and no longer counts. What archives hold is not changed."""
    with _correcting(config) as (connection, auditor):
        store.invalidate(connection, job_id, _act(by, reason))
        auditor.corrected(_name(by), auditor.node.address, subjects.of_jobs(connection, [job_id])[job_id])
    output.print(f"the result of job {job_id} is invalid")


@patients.command()
def restore(job_id: JobId, reason: Reason, by: By = None, config: Config = None) -> None:
    """Lift the mark of an invalid result."""
    with _correcting(config) as (connection, auditor):
        store.restore(connection, job_id, _act(by, reason))
        auditor.corrected(_name(by), auditor.node.address, subjects.of_jobs(connection, [job_id])[job_id])
    output.print(f"the result of job {job_id} counts again")


@patients.command()
def merge(
    patient_id: PatientID,
    into: Annotated[str, typer.Option(help="PatientID that the measurements count for from now on.")],
    reason: Reason,
    issuer: Annotated[str, typer.Option(help=_ISSUER_HELP)] = "",
    into_issuer: Annotated[str, typer.Option(help="IssuerOfPatientID of the other.")] = "",
    by: By = None,
    config: Config = None,
) -> None:
    """Say that a PatientID belongs to another patient; the files and rows stay as they came."""
    one, other = Patient(patient_id, issuer), Patient(into, into_issuer)
    with _correcting(config) as (connection, auditor):
        store.merge(connection, one, other, _act(by, reason))
        auditor.merged(_name(by), auditor.node.address, (one, other))
    output.print("merged")


@patients.command()
def unmerge(
    patient_id: PatientID,
    reason: Reason,
    issuer: Annotated[str, typer.Option(help=_ISSUER_HELP)] = "",
    by: By = None,
    config: Config = None,
) -> None:
    """Undo a merge."""
    with _correcting(config) as (connection, auditor):
        undone = store.unmerge(connection, Patient(patient_id, issuer), _act(by, reason))
        auditor.merged(_name(by), auditor.node.address, (undone.patient, undone.into))
    output.print("the merge is undone")


@patients.command()
def merges(
    every: Annotated[bool, typer.Option("--all", help="Those that were undone, too.")] = False,
    config: Config = None,
) -> None:
    """List the merges: who counts as whom, who said so and why."""
    settings, _ = load(config)
    with reading(settings) as connection:
        listed = store.list_merges(connection, every=every)
    table = Table("at (UTC)", "patient", "counts as", "by", "reason", "undone")
    for one in listed:
        undone = f"{short(one.undone.at)} {one.undone.by}: {one.undone.reason}" if one.undone else ""
        cells = [short(one.act.at), _label(one.patient), _label(one.into), one.act.by, one.act.reason, undone]
        table.add_row(*map(escape, cells))
    output.print(table if listed else "no patients are merged")


@patients.command()
def cohort(
    out: Annotated[Path, typer.Argument(help="File to write, .csv or .parquet.", dir_okay=False)],
    pseudonymise: Annotated[
        bool, typer.Option("--pseudonymise", help="Pseudonyms for IDs and UIDs, days in place of dates, no free text.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="File with a secret of 16 bytes or more: the same pseudonyms each time.", dir_okay=False),
    ] = None,
    config: Config = None,
) -> None:
    """Write every measurement of every patient as one tidy table, a row each; without --pseudonymise it names IDs."""
    settings, _ = load(config)
    if key and not pseudonymise:
        raise typer.BadParameter("is of use with --pseudonymise only", param_hint="--key")
    with reading(settings) as connection:
        by_patient = store.all_points(connection)
    rows = [
        {"counts_for": _label(patient), **history.tabulate(entry)}
        for patient, points in sorted(by_patient.items(), key=lambda item: (item[0].id, item[0].issuer))
        for entry in history.timeline(points, settings.history)
    ]
    if pseudonymise:
        rows = cohorts.pseudonymise(rows, cohorts.read_key(key))
    cohorts.write(rows, out)
    _tell_export(settings, out, [point for points in by_patient.values() for point in points])
    output.print(f"{len(rows)} measurements of {len(by_patient)} patients: {out}")


def _label(patient: Patient) -> str:
    return f"{patient.id}^^^{patient.issuer}" if patient.issuer else patient.id


def _patient(connection: Connection, patient_id: str, issuer: str | None) -> Patient:
    """The patient meant. Raises Refused where an ID alone could mean several."""
    if issuer is None and len(known := store.issuers(connection, patient_id)) > 1:
        names = ", ".join(name or '""' for name in known)
        raise Refused(f"this PatientID was given by {len(known)} issuers: choose one by --issuer ({names})")
    if issuer is None:
        issuer = next(iter(store.issuers(connection, patient_id)), "")
    return Patient(patient_id, issuer)


@contextmanager
def _correcting(config: Path | None) -> Iterator[tuple[Connection, Auditor]]:
    """A change of what counts, committed at the end, once it stands on the audit trail."""
    settings, _ = load(config)
    database = open_database(settings.database_url)
    auditor = Auditor(settings, database, utc_now)
    with database.begin() as connection:
        yield connection, auditor
    database.close()


def _tell_export(settings: Settings, file: Path, points: Sequence[VolumePoint]) -> None:
    """Put on the audit trail that data of patients went into a file."""
    about = dict.fromkeys(
        Subject(point.study_instance_uid, Patient(point.patient_id, point.issuer_of_patient_id)) for point in points
    )
    database = open_database(settings.database_url)
    Auditor(settings, database, utc_now).exported(getpass.getuser(), file.resolve().as_uri(), about)
    database.close()


def _name(by: str | None) -> str:
    return by or getpass.getuser()


def _act(by: str | None, reason: str) -> Act:
    try:
        return Act(_name(by), reason, utc_now())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None

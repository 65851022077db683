"""The doctor: is everything there that the node needs, does it work, and what is to be done where not.

finding        what a check says
storage        database and archive
surroundings   model, accelerator, clock, certificates
traffic        destinations, jobs, deliveries, alarms

A check is a function of the visit, and of the stores where it looks into them, that yields findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dicomnode.archive import Archive
from dicomnode.database import open_database, sqlite_file
from dicomnode.doctor.finding import Finding, Level, Stores, Visit, failure, ok, warning
from dicomnode.doctor.storage import check_database, check_disk, check_files
from dicomnode.doctor.surroundings import check_certificates, check_clock, check_device, check_model, check_web
from dicomnode.doctor.traffic import check_alarms, check_destinations, check_work
from dicomnode.errors import Misconfigured
from dicomnode.settings import Settings, load

__all__ = ["Finding", "Level", "Visit", "examine", "examine_settings"]

_STORES = (check_disk, check_files, check_clock, check_work, check_alarms)
_OTHERS = (check_device, check_model, check_certificates, check_web, check_destinations)


def examine(visit: Visit) -> Iterator[Finding]:
    """Every check, each finding as soon as it is made."""
    yield from _look_into_stores(visit)
    for check in _OTHERS:
        yield from check(visit)


def examine_settings(config: Path | None) -> tuple[Settings | None, Finding]:
    """The settings, and whether they can be used at all."""
    try:
        settings, effective = load(config)
    except Misconfigured as error:
        return None, failure("settings", str(error), "correct it; docs/settings.md explains every key")
    files = {one.origin for one in effective} - {"default"}
    return settings, ok("settings", f"from {', '.join(sorted(files)) or 'the defaults alone'}")


def _look_into_stores(visit: Visit) -> Iterator[Finding]:
    settings = visit.settings
    file = sqlite_file(settings.database_url)
    if not settings.archive.path.is_dir() or (file is not None and not file.is_file()):
        yield warning("archive", "archive or database is not made yet", "start the node: it makes both")
        return
    try:
        archive = Archive(settings.archive.path, int(settings.archive.reserve_gb * 1e9))
        database = open_database(settings.database_url, migrate=False)
    except Misconfigured as error:
        yield failure("archive and database", str(error), "correct the setting, or restore what it names from a backup")
        return
    stores = Stores(database, archive)
    findings = list(check_database(visit, stores))
    yield from findings
    # Of a database that is broken or of another version nothing else can be asked.
    if all(finding.level is not Level.FAILURE for finding in findings):
        for check in _STORES:
            yield from check(visit, stores)
    database.close()

"""Checks of what goes in and out: destinations, jobs, deliveries, alarms."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from dicomnode import dicomweb, dimse
from dicomnode.deliveries import STUCK, DeliveryState
from dicomnode.doctor.finding import Finding, Stores, Visit, failure, ok, warning
from dicomnode.endpoints import EndpointSettings
from dicomnode.errors import Misconfigured, Refused, Unavailable
from dicomnode.sections import QuerySourceSettings
from dicomnode.settings import read_secret
from dicomnode.store import inventory, watch

_STANDS_STILL = timedelta(minutes=15)
_UNDELIVERED = (DeliveryState.PENDING, DeliveryState.SENDING, *STUCK)


def check_destinations(visit: Visit) -> Iterator[Finding]:
    """Whether every destination and source, and the archive that is asked for counts, answers."""
    settings = visit.settings
    if not settings.destinations:
        yield warning("destinations", "there is none: results stay in this node", "add [[destinations]]")
    for destination in settings.destinations:
        yield _ask(visit, f"destination {destination.name}", destination)
    for source in settings.sources:
        yield _ask(visit, f"source {source.name}", source)
    if settings.query_source.ae_title:
        yield _ask(visit, "query_source", settings.query_source)


def _ask(visit: Visit, check: str, described: EndpointSettings | QuerySourceSettings) -> Finding:
    settings = visit.settings
    try:
        if isinstance(described, EndpointSettings) and described.url:
            secret, timeout_s = read_secret(described), settings.courier.timeout_seconds
            dicomweb.make_line(described, secret, settings.tls, timeout_s).echo()
            return ok(check, f"{described.url} answers")
        peer = dimse.make_peer(described, settings.tls, visit.now)
        dimse.echo(peer, settings.listener.ae_title, settings.courier.timeout_seconds)
    except (Refused, Unavailable, Misconfigured) as error:
        return failure(check, str(error), "see that it runs, knows this node's AE title and address, and is reached")
    return ok(check, f"{peer} answers" + (" over TLS" if peer.security else ""))


def check_work(visit: Visit, stores: Stores) -> Iterator[Finding]:
    """Jobs and deliveries that stand still."""
    with stores.database.read() as connection:
        waiting = inventory.backlog(connection, visit.now - _STANDS_STILL)
        destinations = inventory.deliveries_by_destination(connection)
    minutes = int(_STANDS_STILL.total_seconds() / 60)
    found = []
    if waiting.left_jobs or waiting.left_deliveries:
        text = f"{waiting.left_jobs} jobs and {waiting.left_deliveries} deliveries were left by a process that died"
        found.append(failure("work", text, "start the node: its worker and courier take them over"))
    if waiting.overdue_jobs and not waiting.jobs_at_work:
        text = f"{waiting.overdue_jobs} jobs wait since more than {minutes} minutes, and no worker is at work"
        found.append(failure("work", text, "start the node, or its worker: `dicomnode serve --only worker`"))
    if waiting.failed_jobs:
        text = f"{waiting.failed_jobs} jobs failed"
        found.append(warning("work", text, "`dicomnode jobs` says why; then `dicomnode requeue ID`"))
    found += _check_deliveries(visit, destinations)
    yield from found or [ok("work", "nothing stands still")]


def _check_deliveries(visit: Visit, destinations: dict[str, dict[str, int]]) -> Iterator[Finding]:
    known = {destination.name for destination in visit.settings.destinations}
    for name, states in destinations.items():
        if stuck := sum(states.get(state, 0) for state in STUCK):
            advice = "`dicomnode deliveries` says why; then `dicomnode retry`"
            yield warning("work", f"{stuck} deliveries to {name} are parked or failed", advice)
        if name not in known and (left := sum(states.get(state, 0) for state in _UNDELIVERED)):
            text = f"{left} deliveries are for {name}, which is no destination any more"
            yield warning("work", text, "add it again, or give them up: until then their files are kept")


def check_alarms(_: Visit, stores: Stores) -> Iterator[Finding]:
    """What the node itself complains of."""
    with stores.database.read() as connection:
        alarms = watch.list_alarms(connection, 100)
    for alarm in alarms:
        yield warning(
            "alarms", f"{alarm.kind} {alarm.subject} since {alarm.raised_at:%Y-%m-%d %H:%M} UTC: {alarm.reason}"
        )
    if not alarms:
        yield ok("alarms", "none is on")

"""/metrics: what a monitoring system watches, in Prometheus' text format and base units. Without patients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from statistics import median

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dicomnode.deliveries import DeliveryState
from dicomnode.jobs import JobState
from dicomnode.store import inventory, listing, presence
from dicomnode.store.watch import AlarmKind
from dicomnode.web.health import Check, examine
from dicomnode.web.signin import Monitor
from dicomnode.web.site import Here, Site

router = APIRouter(tags=["monitoring"])

_DAY = timedelta(days=1)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def tell_metrics(here: Here, _: Monitor) -> Response:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry()
    registry.register(_Families(here))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Families:
    def __init__(self, here: Site) -> None:
        self._here = here

    def collect(self) -> Iterable[Metric]:
        """Every metric of the node; where the database is away those that need none."""
        here, now = self._here, self._here.clock()
        checks = examine(here)
        yield _check_family(checks)
        room = "Free disk space above archive.reserve_gb, which may be negative."
        yield GaugeMetricFamily("dicomnode_disk_room_bytes", room, here.archive.room_bytes)
        if any(check.name == "database" and check.is_ok for check in checks):
            yield from _count(here, now)


def _check_family(checks: Iterable[Check]) -> Metric:
    family = GaugeMetricFamily("dicomnode_check_ok", "Whether what /health looks at is well.", labels=["check"])
    for check in checks:
        family.add_metric([check.name], float(check.is_ok))
    return family


def _count(here: Site, now: datetime) -> Iterator[Metric]:
    with here.database.read() as connection:
        jobs, destinations = listing.count_jobs(connection), inventory.deliveries_by_destination(connection)
        due, pending = listing.oldest_due(connection), listing.oldest_delivery(connection, DeliveryState.PENDING)
        spans = listing.analysis_spans(connection, now - _DAY)
        alarms, signs = listing.count_alarms(connection), presence.signs(connection)
        arriving, received = len(listing.arriving(connection, 1000)), listing.newest_instance(connection)
    yield _by("dicomnode_jobs", "Jobs by state.", "state", {state: jobs.get(state, 0) for state in JobState})
    yield _age("dicomnode_job_oldest_due_age_seconds", "How long a queued job has been due.", due, now)
    yield _deliveries(destinations)
    yield _age("dicomnode_delivery_oldest_pending_age_seconds", "How long a delivery has been pending.", pending, now)
    yield CounterMetricFamily("dicomnode_instances_received", "Instances that were stored.", received)
    yield GaugeMetricFamily("dicomnode_series_arriving", "Series that wait to be complete.", arriving)
    yield _by("dicomnode_alarms", "Alarms that are on.", "kind", {kind: alarms.get(kind, 0) for kind in AlarmKind})
    yield GaugeMetricFamily("dicomnode_analyses_last_day", "Analyses that ended in the last 24 hours.", len(spans))
    if spans:
        seconds = [span.total_seconds() for span in spans]
        took = {"median": median(seconds), "max": max(seconds)}
        text = "How long the analyses took that ended in the last 24 hours."
        yield _by("dicomnode_analysis_duration_seconds", text, "statistic", took)
    lives = GaugeMetricFamily(
        "dicomnode_sign_of_life_age_seconds", "How long ago a process said that it lives.", labels=["actor", "process"]
    )
    for sign in signs:
        lives.add_metric([sign.actor, sign.process], (now - sign.seen_at).total_seconds())
    yield lives


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _deliveries(destinations: Mapping[str, Mapping[str, int]]) -> Metric:
    family = GaugeMetricFamily(
        "dicomnode_deliveries", "Deliveries by destination and state.", labels=["destination", "state"]
    )
    for name, states in destinations.items():
        for state in DeliveryState:
            family.add_metric([name, state], states.get(state, 0))
    return family


def _age(name: str, text: str, since: datetime | None, now: datetime) -> Metric:
    return GaugeMetricFamily(name, text + " 0: none is.", max(0.0, (now - since).total_seconds()) if since else 0.0)

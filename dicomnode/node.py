"""Composition root: builds the actors from the settings, runs them, and stops them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from dicomnode import dicomweb, herald
from dicomnode.archive import Archive
from dicomnode.arrivals import CompletenessRule
from dicomnode.assembler import Assembler, CountSource
from dicomnode.audit.messages import Entity
from dicomnode.auditor import Auditor
from dicomnode.courier import Courier, Route
from dicomnode.database import Database, open_database
from dicomnode.deliveries import Patience
from dicomnode.dimse import Line, count_instances, make_peer, server_context, web_context
from dicomnode.endpoints import DestinationSettings
from dicomnode.errors import Misconfigured, Unavailable
from dicomnode.herald import Herald
from dicomnode.housekeeper import Household, Housekeeper
from dicomnode.jobs import RetryPolicy
from dicomnode.lifecycle import Backoff
from dicomnode.notary import Notary
from dicomnode.retention import RetentionRule
from dicomnode.sections import WorkerSettings
from dicomnode.selection import Selection
from dicomnode.settings import Settings, read_secret
from dicomnode.store import notices, presence

if TYPE_CHECKING:
    from models.bundle import Model

log = logging.getLogger(__name__)

EXIT_MISCONFIGURED = 78  # EX_CONFIG of sysexits.h: a child's word to its node that restarting it cannot help
_RESTART_S = 5.0
_RETRY_S = 60.0
_PULSE_S = 10.0
_STOP_S = 20.0


class Actor(StrEnum):
    """The nine actors; they meet only in the database, so that any subset may run apart."""

    RECEIVER = "receiver"
    ASSEMBLER = "assembler"
    WORKER = "worker"
    COURIER = "courier"
    HOUSEKEEPER = "housekeeper"
    PULLER = "puller"
    HERALD = "herald"
    HISTORIAN = "historian"
    WEB = "web"


APART = (Actor.WORKER, Actor.WEB)
"""Those that have a process of their own: whatever happens to it, the others go on."""


def utc_now() -> datetime:
    """The node's clock."""
    return datetime.now(UTC)


class Node:
    """The actors of one `serve`."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        """Open the archive, the database and the audit trail. Raises Misconfigured.

        config: handed on to the worker's process.
        """
        self._settings = settings
        self._config = config
        self._stop = Event()
        self._failures: list[Exception] = []
        self._archive = Archive(settings.archive.path, int(settings.archive.reserve_gb * 1e9))
        self._database: Database = open_database(settings.database_url)
        self._auditor = Auditor(settings, self._database, utc_now)

    def serve(self, actors: frozenset[Actor]) -> None:
        """Run the actors until `stop` is called or one cannot go on. Raises what kept that one from going on."""
        if len(actors) > 1 and not self._settings.web.enabled:
            actors -= {Actor.WEB}
        plan = self._plan(actors)
        threads = [Thread(target=self._guard, args=(name, run), name=name, daemon=True) for name, run in plan]
        self._auditor.start(listens=Actor.RECEIVER in actors)
        for thread in threads:
            thread.start()
        self._pulse(actors if len(actors) == 1 else actors - set(APART))
        for thread in threads:
            thread.join(_STOP_S)
        self._auditor.stop(listens=Actor.RECEIVER in actors)
        self._database.close()
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        """Let every actor end its step and return; safe in a signal handler."""
        self._stop.set()

    def serve_child(self, actor: Actor, parent: int) -> None:
        """Run one of `APART` in this process, the node's child, until the node stops it or is gone."""
        watches = [partial(self._stop_when_orphaned, parent), partial(self._auditor.watch, self._stop)]
        for watch in [*watches, partial(self._pulse, frozenset({actor}))]:
            Thread(target=watch, daemon=True).start()
        self._alone(actor)()
        self._auditor.settle(is_over=lambda _: True)

    def _alone(self, actor: Actor) -> Callable[[], None]:
        return {Actor.WORKER: self._work, Actor.WEB: self._show}[actor]

    def _work(self) -> None:
        # Imported here: PyTorch costs seconds and hundreds of megabytes that the other actors do not need.
        from dicomnode.worker import Worker, Workplace

        settings = self._settings.worker
        model, device = load_model(settings)
        log.info("worker on %s with %s %s", device, model.card.name, model.card.version)
        log.info("%s", model.card.statement)
        retry = RetryPolicy(settings.max_attempts, Backoff(settings.retry_seconds, settings.retry_cap_seconds))
        names = tuple(destination.name for destination in self._settings.destinations)
        place = Workplace(
            *(model, device, settings.batch_size, settings.lease_seconds, retry, names),
            page=self._settings.results.pdf,
            bands=self._settings.history,
        )
        Worker(self._database, self._archive, place, utc_now, witness=self._auditor.used).run(self._stop)

    def _plan(self, actors: frozenset[Actor]) -> list[tuple[str, Callable[[], None]]]:
        plan: list[tuple[str, Callable[[], None]]] = [("auditor", lambda: self._auditor.watch(self._stop))]
        if forward := self._auditor.forward:
            plan.append(("audit-forwarder", partial(forward, self._stop)))
        if Actor.RECEIVER in actors:
            plan.append(("receiver", self._receive))
        if Actor.ASSEMBLER in actors:
            plan.append(("assembler", self._assemble))
        for actor in actors & set(APART):
            # Alone it needs no process of its own: this one is.
            run = self._alone(actor) if len(actors) == 1 else partial(self._supervise, actor)
            plan += [(actor, run)]
        if Actor.COURIER in actors:
            plan += [(f"courier-{one.name}", self._deliver(one)) for one in self._settings.destinations]
        if Actor.PULLER in actors:
            plan += self._pullers() if self._settings.pull else []
        if Actor.HOUSEKEEPER in actors:
            plan.append(("housekeeper", self._keep_house))
        if Actor.HISTORIAN in actors and self._settings.priors.source:
            plan.append(("historian", self._look_back()))
        if Actor.HERALD in actors:
            plan += self._heralds()
        return plan

    def _guard(self, name: str, run: Callable[[], None]) -> None:
        """Run an actor; when it ends, for whatever reason, the node stops rather than go on without it."""
        failure: Exception | None = Unavailable(f"the {name} ended unexpectedly")
        try:
            run()
            failure = None
        except (Misconfigured, Unavailable) as error:
            failure = error
        finally:
            if failure:
                self._failures.append(failure)
            self._stop.set()

    def _receive(self) -> None:
        from dicomnode.receiver import Receiver, conflict_status
        from pipeline.series import DECODABLE_TRANSFER_SYNTAXES

        auditor = self._auditor
        receiver = Receiver(
            self._database,
            self._archive,
            utc_now,
            witness=auditor.stored,
            guard=auditor.denied,
            conflict_status=conflict_status(self._settings.listener),
        )
        notary = Notary(self._database, self._titles(), self._patience(confirmed=True), utc_now, deny=receiver.deny)
        services = [receiver.service(tuple(DECODABLE_TRANSFER_SYNTAXES)), notary.service()]
        receiver.run(self._settings.listener, services, self._stop, self._security())

    def _security(self) -> ssl.SSLContext | None:
        """What the listener speaks TLS with. Raises Misconfigured."""
        return server_context(self._settings.tls, utc_now()) if self._settings.listener.tls else None

    def _assemble(self) -> None:
        series = self._settings.series
        source = self._count_source()
        complete = CompletenessRule(
            series.quiet_seconds,
            by_study=bool(series.prefer),
            grace_seconds=series.grace_seconds,
            asks_archive=source is not None,
            believes_headers=series.believe_headers,
        )
        selection = Selection.of(self._settings)
        Assembler(self._database, self._archive, complete, selection, utc_now, source=source).run(self._stop)

    def _count_source(self) -> CountSource | None:
        """The archive that is asked how many instances series have. Raises Misconfigured."""
        query = self._settings.query_source
        if not query.ae_title:
            return None
        peer, calling_ae = make_peer(query, self._settings.tls, utc_now()), self._settings.listener.ae_title
        witness = partial(self._auditor.asked, Entity.peer(peer.ae_title, peer.host))
        return CountSource(
            f"the archive {query.ae_title}",
            lambda series: count_instances(peer, calling_ae, series, query.timeout_seconds, witness=witness),
        )

    def _titles(self) -> dict[str, str]:
        """The AE title of each destination by its name."""
        return {one.name: one.ae_title for one in self._settings.destinations if one.ae_title}

    def _patience(self, *, confirmed: bool) -> Patience:
        """confirmed: whether the destination offers storage commitment."""
        courier = self._settings.courier
        return Patience(
            Backoff(courier.retry_seconds, courier.retry_cap_seconds),
            courier.give_up_hours * 3600,
            courier.commitment_timeout_seconds if confirmed else None,
            courier.commitment_sendings,
        )

    def _pullers(self) -> list[tuple[str, Callable[[], None]]]:
        """One for each source that a rule names. Raises Misconfigured."""
        # Imported here: a node without rules needs none of it.
        from dicomnode.puller import hire
        from dicomnode.receiver import Receiver, conflict_status

        status = conflict_status(self._settings.listener)
        receiver = Receiver(self._database, self._archive, utc_now, conflict_status=status)
        hired = hire(self._settings, self._database, receiver, self._auditor, utc_now)
        return [(f"puller-{puller.name}", partial(puller.run, self._stop)) for puller in hired]

    def _look_back(self) -> Callable[[], None]:
        """What looks for earlier reports. Raises Misconfigured."""
        # Imported here: a node that looks for none needs none of it.
        from dicomnode.historian import Historian, open_archive

        archive, name = open_archive(self._settings, self._auditor, utc_now())
        return partial(Historian(self._database, archive, name, utc_now).run, self._stop)

    def _keep_house(self) -> None:
        keep = self._settings.retention
        quota = None if keep.quota_gb is None else int(keep.quota_gb * 1e9)
        rule = RetentionRule(keep.received_days, keep.results_days, quota)
        promising = tuple(d.name for d in self._settings.destinations if d.storage_commitment)
        household = Household(rule, promising, self._settings.tls.certificate)
        witness = self._auditor.removed
        Housekeeper(self._database, self._archive, household, utc_now, witness=witness).run(self._stop)

    def _deliver(self, destination: DestinationSettings) -> Callable[[], None]:
        """What sends to a destination. Raises Misconfigured."""
        settings, commits = self._settings, destination.storage_commitment
        timeout_s, patience = settings.courier.timeout_seconds, self._patience(confirmed=commits)
        if destination.url:
            web = dicomweb.make_line(destination, read_secret(destination), settings.tls, timeout_s)
            route = Route(destination.name, web, patience)
        else:
            line = Line(make_peer(destination, settings.tls, utc_now()), settings.listener.ae_title, timeout_s)
            route = Route(destination.name, line, patience, line if commits else None)
        witness = partial(self._auditor.sent, Entity.peer(*destination.address))
        courier = Courier(self._database, self._archive, route, utc_now, witness=witness)
        return lambda: courier.run(self._stop)

    def _heralds(self) -> list[tuple[str, Callable[[], None]]]:
        """One for each notification, and what they want to hear of. Raises Misconfigured."""
        everyone = herald.recipients(self._settings)
        with self._database.begin() as connection:
            notices.subscribe(connection, herald.subscriptions(self._settings))
        return [
            (f"herald-{one.notification.name}", partial(Herald(self._database, one, utc_now).run, self._stop))
            for one in everyone
        ]

    def _show(self) -> None:
        # Imported here: the other actors need no web framework.
        from dicomnode.web.app import create_app
        from dicomnode.web.server import serve

        app = create_app(self._settings, self._database, self._archive, self._auditor, utc_now)
        context = web_context(self._settings.tls, utc_now()) if self._settings.web.tls else None
        serve(app, self._settings.web, context, self._stop)

    def _supervise(self, actor: Actor) -> None:
        """Keep an actor's process alive; after it died, start another one.

        Raises Misconfigured on the worker's word. Without the web interface the node goes on, and tries again.
        """
        command = [sys.executable, "-m", "dicomnode", "serve", "--only", actor, "--child-of", str(os.getpid())]
        if self._config:
            command += ["--config", str(self._config)]
        while not self._stop.is_set():
            # A session of its own: Ctrl-C in a terminal reaches the node, which then stops the child in order.
            with subprocess.Popen(command, start_new_session=True) as process:
                self._watch(process)
            if self._stop.is_set():
                return
            is_hopeless = process.returncode == EXIT_MISCONFIGURED
            if is_hopeless and actor is Actor.WORKER:
                raise Misconfigured("the worker cannot start; its reason stands above")
            wait_s = _RETRY_S if is_hopeless else _RESTART_S
            log.error("the %s ended with %s; starting another in %.0f s", actor, process.returncode, wait_s)
            self._stop.wait(wait_s)

    def _pulse(self, actors: frozenset[Actor]) -> None:
        """Until the node stops, leave signs of life of the actors."""
        process = f"{socket.gethostname()}:{os.getpid()}"
        while True:
            with suppress(Unavailable), self._database.begin() as connection:
                presence.show(connection, actors, process, utc_now())
            if self._stop.wait(_PULSE_S):
                break
        with suppress(Unavailable), self._database.begin() as connection:
            presence.leave(connection, process)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None and not self._stop.is_set():
            self._stop.wait(0.5)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S / 2)
            except subprocess.TimeoutExpired:
                process.kill()  # in the middle of an analysis: its lease runs out and the job is taken over

    def _stop_when_orphaned(self, parent: int) -> None:
        while not self._stop.wait(0.5):
            if os.getppid() != parent:
                log.warning("the node is gone; its child stops")
                self._stop.set()


def load_model(settings: WorkerSettings) -> tuple[Model, str]:
    """The model of the settings, verified, and the torch device it runs on. Raises Misconfigured."""
    import torch

    from models.bundle import BadBundle, default_bundle
    from models.ensemble import mirror, read_ensemble

    has_cuda = torch.cuda.is_available()
    if settings.device.startswith("cuda") and not has_cuda:
        raise Misconfigured(f"worker.device: {settings.device} is set, but no CUDA device is available")
    device = ("cuda" if has_cuda else "cpu") if settings.device == "auto" else settings.device
    try:
        model = read_ensemble(settings.bundles or (default_bundle(),), device)
    except BadBundle as error:
        raise Misconfigured(f"worker.model: {error}") from None
    return model if settings.flips is None else mirror(model, settings.flips), device

"""Checks of what the node stands on: model, accelerator, clock, certificates."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from dicomnode.dimse import client_context, server_context, web_context
from dicomnode.dimse.security import RENEW_WITHIN, expires_at
from dicomnode.doctor.finding import Finding, Stores, Visit, failure, ok, warning
from dicomnode.endpoints import EndpointSettings
from dicomnode.errors import Misconfigured
from dicomnode.node import load_model
from dicomnode.sections import QuerySourceSettings
from dicomnode.store import inventory
from dicomnode.web.accounts import read_accounts

_SKEW = timedelta(minutes=1)
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


def check_model(visit: Visit) -> Iterator[Finding]:
    """Whether the bundle is the one that its card describes, and what it says of itself."""
    try:
        model, _ = load_model(visit.settings.worker)
    except Misconfigured as error:
        yield failure("model", str(error), "`dicomnode models list` shows those that are there, `models use` takes one")
    else:
        card = model.card
        yield ok("model", f"{card.name} {card.version}, weights verified. {card.statement}")


def check_device(visit: Visit) -> Iterator[Finding]:
    """Which accelerator there is."""
    import torch

    wanted, version = visit.settings.worker.device, torch.__version__
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield ok("device", f"PyTorch {version}, CUDA {torch.version.cuda}: {names}")
    elif wanted.startswith("cuda"):
        yield failure("device", f"worker.device is {wanted}, PyTorch {version} sees no CUDA device", "check the driver")
    else:
        yield ok("device", f"PyTorch {version}, no CUDA device: the CPU measures")


def check_clock(visit: Visit, stores: Stores) -> Iterator[Finding]:
    """Whether time went on since the last thing happened, and whether somebody sets the clock."""
    with stores.database.read() as connection:
        newest = inventory.newest_at(connection)
    text = f"{visit.now:%Y-%m-%d %H:%M:%S} UTC, local time is UTC{visit.now.astimezone():%z}"
    if newest and newest > visit.now + _SKEW:
        text = f"{text}; but the newest row is of {newest:%Y-%m-%d %H:%M:%S}"
        yield failure("clock", text, "set the clock: leases, waits and retention go by it")
    synchronised = _is_synchronised()
    if synchronised:
        yield ok("clock", f"{text}, synchronised")
    else:
        state = "unknown whether synchronised" if synchronised is None else "not synchronised"
        yield warning("clock", f"{text}, {state}", "run an NTP client, such as chrony")


def _is_synchronised() -> bool | None:
    """Whether the kernel's clock is disciplined; None: it does not say."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    # All zero it only asks. struct timex has 208 bytes on 64-bit Linux.
    state = -1 if adjtimex is None else int(adjtimex(ctypes.create_string_buffer(512)))
    return None if state < 0 else state != _UNSYNCHRONISED


def check_web(visit: Visit) -> Iterator[Finding]:
    """Whether the web interface could be served, and to whom."""
    web = visit.settings.web
    if not web.enabled:
        return
    where = f"{'https' if web.tls else 'http'}://{web.host}:{web.port}"
    try:
        accounts = read_accounts(web.users) if web.users else []
        if web.tls:
            web_context(visit.settings.tls, visit.now)
    except Misconfigured as error:
        yield failure("web", str(error), "correct it: until then the web interface does not start")
        return
    guests = f"{len(accounts)} users and tokens" if web.users else "everybody on this machine is an operator"
    yield ok("web", f"{where}, {guests}")


def check_certificates(visit: Visit) -> Iterator[Finding]:
    """Whether what TLS needs is there, fits together and is valid, for the listener and each destination."""
    settings = visit.settings
    peers: list[EndpointSettings | QuerySourceSettings] = [
        *settings.destinations,
        *settings.sources,
        settings.query_source,
    ]
    speakers = [peer for peer in peers if peer.tls]
    if not settings.listener.tls and not speakers:
        yield ok("certificates", "TLS is off")
        return
    try:
        if settings.listener.tls:
            server_context(settings.tls, visit.now)
        for peer in speakers:
            client_context(settings.tls, visit.now, peer.ca)
        yield from _check_expiry("tls.certificate", settings.tls.certificate, visit)
    except Misconfigured as error:
        yield failure("certificates", str(error), "have a certificate issued, and name its files in [tls]")


def _check_expiry(name: str, certificate: Path | None, visit: Visit) -> Iterator[Finding]:
    if certificate is None:
        return
    left = expires_at(certificate) - visit.now
    text = f"{name} fits its key and is valid for {left.days} days more"
    if left < RENEW_WITHIN:
        yield warning("certificates", text, "have it renewed; peers refuse it from then on")
    else:
        yield ok("certificates", text)

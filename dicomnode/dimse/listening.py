"""The listener: associations are accepted for C-ECHO and for what its services offer."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    Verification,
)

from dicomnode.dimse.admission import Denial
from dicomnode.dimse.door import Listener
from dicomnode.errors import Unavailable
from dicomnode.sections import ListenerSettings

STORED_SOP_CLASSES: tuple[str, ...] = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
"""What the listener accepts by C-STORE."""

_MAXIMUM_LENGTH = 1 << 17  # of a P-DATA-TF that we announce; dcmtk sends no longer ones


@dataclass(frozen=True)
class Service:
    """What the listener does for its callers.

    sop_classes, transfer_syntaxes: the presentation contexts that it accepts. answer: called with the event of each
    request, returns its status. is_notified: the caller is the SCP of these SOP classes and proposes that role
    (PS3.7 D.3.3.4), as an archive does that brings an N-EVENT-REPORT.
    """

    event: evt.InterventionEvent
    sop_classes: Sequence[str]
    transfer_syntaxes: Sequence[str]
    answer: Callable[[evt.Event], Any]
    is_notified: bool = False


def listen(
    settings: ListenerSettings,
    services: Sequence[Service],
    security: ssl.SSLContext | None = None,
    deny: Callable[[Denial], None] = lambda _: None,
) -> Listener:
    """Start the listener for C-ECHO and the services; it runs in threads of its own.

    security: what TLS is spoken with, None: in the clear. deny: called with what a peer is denied, from many threads.
    Raises Unavailable where the port cannot be bound.
    """
    entity = AE(settings.ae_title)
    # The door is stricter and knows addresses; here nobody is to be left for a second opinion.
    entity.require_called_aet, entity.maximum_associations = False, settings.max_associations + 1
    entity.maximum_pdu_size = _MAXIMUM_LENGTH
    entity.acse_timeout = settings.connect_seconds
    entity.network_timeout = entity.dimse_timeout = settings.idle_seconds
    entity.add_supported_context(Verification)
    for service in services:
        roles = {"scu_role": False, "scp_role": True} if service.is_notified else {}
        for sop_class in service.sop_classes:
            entity.add_supported_context(sop_class, list(service.transfer_syntaxes), **roles)
    handlers: list[Any] = [(service.event, service.answer) for service in services]
    try:
        listener = entity.make_server(
            (settings.host, settings.port),
            ssl_context=security,
            evt_handlers=handlers,
            server_class=Listener,
            settings=settings,
            deny=deny,
        )
    except OSError as error:
        raise Unavailable(f"listener: {settings.host}:{settings.port}: {error.strerror}") from None
    Thread(target=listener.serve_forever, name="listener", daemon=True).start()
    return listener


def close(listener: Listener, grace_s: float) -> None:
    """Stop listening, give associations in progress some seconds to end, then abort those that remain."""
    deadline = time.monotonic() + grace_s
    associations = listener.active_associations
    listener.shutdown()
    while any(association.is_alive() for association in associations) and time.monotonic() < deadline:
        time.sleep(0.05)
    for association in associations:
        if association.is_alive():
            association.abort()

"""The listener: associations are accepted for C-ECHO and for what its services offer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from dicomnode.errors import Unavailable
from dicomnode.sections import ListenerSettings

STORED_SOP_CLASSES: tuple[str, ...] = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
"""What the listener accepts by C-STORE."""


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


def listen(settings: ListenerSettings, services: Sequence[Service]) -> ThreadedAssociationServer:
    """Start the listener for C-ECHO and the services; it runs in threads of its own.

    Raises Unavailable where the port cannot be bound.
    """
    entity = AE(settings.ae_title)
    entity.require_called_aet = False
    entity.require_calling_aet = list(settings.allowed_callers)
    entity.maximum_associations = settings.max_associations
    entity.add_supported_context(Verification)
    for service in services:
        roles = {"scu_role": False, "scp_role": True} if service.is_notified else {}
        for sop_class in service.sop_classes:
            entity.add_supported_context(sop_class, list(service.transfer_syntaxes), **roles)
    handlers: list[Any] = [(service.event, service.answer) for service in services]
    try:
        server = entity.start_server((settings.host, settings.port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise Unavailable(f"listener: {settings.host}:{settings.port}: {error.strerror}") from None
    assert server is not None  # noqa: S101 - only a blocking start returns None
    return server


def close(server: ThreadedAssociationServer, grace_s: float) -> None:
    """Stop listening, give associations in progress some seconds to end, then abort those that remain."""
    deadline = time.monotonic() + grace_s
    associations = server.active_associations
    server.shutdown()
    while any(association.is_alive() for association in associations) and time.monotonic() < deadline:
        time.sleep(0.05)
    for association in associations:
        if association.is_alive():
            association.abort()

"""Application entities to talk to."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from datetime import datetime

from dicomnode.dimse.security import client_context
from dicomnode.endpoints import EndpointSettings
from dicomnode.sections import QuerySourceSettings, TLSSettings

_PEER = re.compile(r"(?P<ae_title>[^@]{1,16})@(?P<host>\[[^\]]+\]|[^:@\s]+):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Peer:
    """An application entity to talk to.

    security: what TLS is spoken with; None: in the clear. certificate_name: what its
    certificate must carry; None: the host.
    """

    ae_title: str
    host: str
    port: int
    security: ssl.SSLContext | None = field(default=None, repr=False)
    certificate_name: str | None = None

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


def make_peer(described: EndpointSettings | QuerySourceSettings, tls: TLSSettings, now: datetime) -> Peer:
    """The peer that a table of the settings describes, of one without url. Raises Misconfigured.

    That is where TLS cannot be spoken with it.
    """
    security = client_context(tls, now, described.ca) if described.tls else None
    name = described.certificate_name
    return Peer(described.ae_title or "", described.host or "", described.port or 0, security, name)


def parse_peer(text: str, security: ssl.SSLContext | None = None) -> Peer:
    """Read `AET@HOST:PORT`; raises ValueError."""
    found = _PEER.fullmatch(text)
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise ValueError(f"{text!r} is not AET@HOST:PORT")
    return Peer(found["ae_title"].strip(), found["host"].strip("[]"), int(found["port"]), security)

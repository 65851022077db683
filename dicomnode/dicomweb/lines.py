"""Origin servers to talk to."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from dicomnode.deliveries import Outcome
from dicomnode.dicomweb.storing import send
from dicomnode.endpoints import EndpointSettings
from dicomnode.errors import Misconfigured, Refused, Unavailable
from dicomnode.sections import TLSSettings

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


@dataclass(frozen=True)
class Line:
    """This node's line to an origin server. url: the base of its services, without a slash at the end.

    user, secret: of HTTP Basic; without user the secret is a bearer token. security: what TLS is spoken with; of an
    https url None takes the system's. timeout_s: of the connection and of each piece of an answer.
    """

    url: str
    timeout_s: float
    user: str | None = None
    secret: str | None = field(default=None, repr=False)
    security: ssl.SSLContext | None = field(default=None, repr=False)
    transport: httpx.BaseTransport | None = field(default=None, repr=False)

    def send(self, files: Sequence[Path]) -> Iterator[tuple[Path, Outcome]]:
        """Send the files by STOW-RS, each in a request of its own."""
        with self.open() as client:
            yield from send(client, self.url, files)

    def echo(self) -> None:
        """Find out whether the server answers us. Raises Unavailable or Refused."""
        with self.open() as client:
            answer = client.get("/studies", params={"StudyInstanceUID": "1.2.3.4.5", "limit": "1"})
            if answer.status_code in (401, 403) or answer.status_code >= 500:
                raise_for(answer.status_code, self.url)

    @contextmanager
    def open(self) -> Iterator[httpx.Client]:
        """A client for some requests. Where the server is away or breaks off, the body ends with Unavailable."""
        is_basic = self.user is not None and self.secret is not None
        headers = {"Authorization": f"Bearer {self.secret}"} if self.secret and not is_basic else {}
        try:
            with httpx.Client(
                base_url=self.url,
                auth=(self.user or "", self.secret or "") if is_basic else None,
                headers=headers,
                timeout=self.timeout_s,
                verify=self.security or True,
                transport=self.transport,
                trust_env=False,  # a hospital's archive is not behind the proxy to the internet
            ) as client:
                yield client
        except httpx.TimeoutException:
            raise Unavailable(f"{self.url}: no answer in time") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.url}: {_explain(error)}") from None

    def __str__(self) -> str:
        return self.url


def make_line(endpoint: EndpointSettings, secret: str | None, tls: TLSSettings, timeout_s: float) -> Line:
    """The line to the url of a table of the settings. Raises Misconfigured where TLS cannot be spoken."""
    url = (endpoint.url or "").rstrip("/")
    security = None
    if url.startswith("https:"):
        ca = endpoint.ca or tls.ca
        try:
            security = ssl.create_default_context(cafile=ca)
            if tls.certificate and tls.key:
                security.load_cert_chain(tls.certificate, tls.key)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(f"{endpoint.name}: TLS: {error.strerror or 'not in PEM'}") from None
    return Line(url, timeout_s, endpoint.user, secret, security)


def raise_for(status: int, url: str) -> None:
    """Raise what an HTTP status that is no success means: Refused, or Unavailable where it speaks of the moment."""
    meaning = {
        401: "wrong or no credentials: see user and secret_file",
        403: "this node may not",
        404: "no such service: see url",
    }.get(status, httpx.codes.get_reason_phrase(status).lower())
    raise (Unavailable if status in _PASSING else Refused)(f"{url}: HTTP {status} {meaning}")


def _explain(error: httpx.HTTPError) -> str:
    """What went wrong below HTTP, in words that hold nothing of a request."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or 'failed'}".replace("_", " ").lower().replace("tls", "TLS", 1)
        if isinstance(cause, OSError) and cause.strerror:
            return f"no connection: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return "no connection" if isinstance(error, httpx.ConnectError) else "the connection broke"

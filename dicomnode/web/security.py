"""What holds for every request and answer: by which name the site is called, from which pages, what browsers may do.

Requests of other sites (CSRF) are told by what browsers say themselves, Sec-Fetch-Site and Origin, and not by a token
in each form; a page of another site can change neither.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HARMLESS = ("GET", "HEAD", "OPTIONS")
_LOCAL = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer says."""


class Guard:
    """Turns away what is not meant for this site or not sent from it, and says in each answer what browsers may do."""

    def __init__(self, app: ASGIApp, names: Collection[str], *, is_https: bool, any_name: bool) -> None:
        """names: by which the site is called, besides those of this machine. any_name: every name will do."""
        self._app = app
        self._names = None if any_name else frozenset(name.lower() for name in (*_LOCAL, *names))
        self._headers = dict(HEADERS)
        if is_https:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                # Patients' data are kept by no cache; what is the same for everybody may be asked for again.
                headers.setdefault("Cache-Control", "no-cache" if scope["path"].startswith("/static/") else "no-store")
            await send(message)

        problem = self._why_refused(scope["method"], Headers(scope=scope))
        if problem:
            await PlainTextResponse(problem[1], problem[0])(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _why_refused(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        # A page of another site whose name is made to lead to this machine (DNS rebinding) says that name.
        if self._names is not None and _name(host) not in self._names:
            return 421, "This site is not called by that name; web.names lists those that it is called by."
        if method not in _HARMLESS and _is_cross_site(headers, host):
            return 403, "A page of another site sent this."
        return None


def _is_cross_site(headers: Headers, host: str) -> bool:
    """Whether a browser says that a page of another origin makes the request; programs say nothing."""
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _name(host: str) -> str:
    """The host of a Host header, without its port, in small letters."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

"""The web interface as an actor: uvicorn in a thread, until the node stops."""

from __future__ import annotations

import logging
import socket
import ssl
from threading import Event, Thread
from typing import TYPE_CHECKING

import uvicorn

from dicomnode.errors import Misconfigured, Unavailable
from dicomnode.sections import WebSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_STOP_S = 5


def serve(app: FastAPI, settings: WebSettings, context: ssl.SSLContext | None, stop: Event) -> None:
    """Serve until `stop` is set. context: what HTTPS is spoken with; None: HTTP.

    Raises Misconfigured where the address cannot be had, Unavailable where serving ended by itself.
    """
    listener = _listen(settings)
    config = uvicorn.Config(
        app,
        log_config=None,  # the node's own: of errors nothing that may quote a patient's data
        log_level="warning",
        access_log=False,  # paths name patients
        server_header=False,
        ws="none",
        lifespan="off",
        proxy_headers=settings.proxy is not None,
        forwarded_allow_ips=settings.proxy or "",
        timeout_graceful_shutdown=_STOP_S,
        ssl_context_factory=(lambda *_: context) if context else None,
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, name="uvicorn", daemon=True)
    thread.start()
    host, port = listener.getsockname()[:2]
    log.info("the web interface is on %s://%s:%d", "https" if context else "http", host, port)
    while thread.is_alive() and not stop.wait(_LOOK_S):
        pass
    server.should_exit = True
    thread.join(2 * _STOP_S)
    if not stop.is_set():
        raise Unavailable("the web interface ended by itself")


def _listen(settings: WebSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise Misconfigured(f"web.port: {settings.host}:{settings.port}: {error.strerror or error}") from None

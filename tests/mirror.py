"""A web server with one file, and every way in which such a server may disappoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Mirror:
    """breaks: after how many bytes of each answer, in turn, the connection ends; then it holds. asked: what came."""

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    minds_if_range: bool = True
    says_length: bool = True
    status: int = 200
    breaks: list[int] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    asked_for: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append(asked)
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.get("range", ""))
        is_same = not self.minds_if_range or asked.get("if-range") == self.etag
        start = int(wanted[1]) if wanted and self.ranges and is_same else 0
        if self.status != 200 or start >= len(self.content):
            handler.send_error(self.status if self.status != 200 else 416)
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.says_length:
            handler.send_header("Content-Length", str(len(body)))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(body[: self.breaks.pop(0)] if self.breaks else body)


@contextmanager
def served(mirror: Mirror) -> Iterator[Mirror]:
    """The mirror at `mirror.url`. As a proxy it answers for every other server too, and `asked_for` says for which."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirror.asked_for.append(self.path)
            mirror.answer(self)

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        mirror.url = f"http://127.0.0.1:{server.server_port}/model.zip"
        try:
            yield mirror
        finally:
            server.shutdown()
            thread.join()

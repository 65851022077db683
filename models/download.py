"""A file fetched over HTTP, gone on with where it broke off.

What is here of a file stands beside it as `NAME.part`, with a note of the version that it belongs to. The rest is asked
for by `Range` with `If-Range` (RFC 9110 13.1.5, 14.2): a server that has another version by now, or that knows no
ranges, sends the whole. Proxies are those of the environment (`https_proxy`, `no_proxy` ...), certificates those of the
system, or of SSL_CERT_FILE.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, build_opener

from models.bundle import BadBundle, blaming

log = logging.getLogger(__name__)

Progress = Callable[[int, int], object]
"""Told how many bytes of how many are here."""

_TIMEOUT_S = 60.0
_BLOCK = 2**18


class NotFetched(Exception):
    """The network or a server was in the way; the text names the address and the reason. Trying again may help."""


@dataclass(frozen=True)
class _Version:
    """A version of the file at an address; validator: strong entity tag or date (RFC 9110 8.8), size: in bytes."""

    url: str
    validator: str
    size: int


@dataclass(frozen=True)
class _Part:
    """What is here of a file that is not yet whole."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> _Version | None:
        """The version that it belongs to; None where there is nothing to go on with at this address."""
        try:
            version = _Version(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return version if version.url == url and 0 < self.size <= version.size else None

    def begin(self, version: _Version) -> None:
        """Begin with nothing. Without a validator no version is noted, so that this is never gone on with."""
        self.discard()
        if version.validator:
            self.note.write_text(json.dumps(asdict(version)), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def bytes_here(file: Path) -> int:
    """How much of a file need not be fetched any more."""
    return file.stat().st_size if file.exists() else _part(file).size


def fetch(url: str, file: Path, size: int | None, progress: Progress) -> None:
    """Fetch a file, which is then here as a whole or not at all; a broken connection is taken up while that helps.

    size: the bytes that it must have; None: as many as the server says.
    Raises NotFetched, and another call goes on from there; BadBundle where it is not what was asked for.
    """
    if not re.match("https?://", url, re.IGNORECASE):
        raise BadBundle(f"{url}: neither http:// nor https://")
    part = _part(file)
    with blaming(file):
        furthest = part.size
        while True:
            try:
                _go_on(url, part, size, progress)
                break
            except NotFetched as error:
                if part.size > furthest:
                    furthest = part.size
                    continue
                kept = f"; {part.size:,} bytes are kept, the same command goes on from there"
                raise NotFetched(f"{error}{kept if part.version(url) else ''}") from None
        part.path.replace(file)
        part.discard()


def _part(file: Path) -> _Part:
    return _Part(file.with_name(f"{file.name}.part"))


def _go_on(url: str, part: _Part, size: int | None, progress: Progress) -> None:
    """Fetch what is missing; raises NotFetched where some of it still is."""
    known = part.version(url)
    if known and part.size == known.size:
        return
    asked = {"Range": f"bytes={part.size}-", "If-Range": known.validator} if known else {}
    with _ask(Request(url, headers={"User-Agent": "dicomnode", **asked}), part) as answer:  # noqa: S310 - http(s) alone
        version = _read_version(url, answer, size)
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            if not known or not _continues(answer, version, known, part.size):
                part.discard()
                raise NotFetched(f"{url}: the server sends another part than was asked for")
        else:
            if known:
                why = "no longer the same" if version.validator != known.validator else "sent only as a whole"
                log.warning("%s is %s: starting again", url, why)
            part.begin(version)
        _append(answer, part, version, progress)


def _ask(request: Request, part: _Part) -> HTTPResponse:
    with _reaching(request.full_url):
        try:
            answer: HTTPResponse = build_opener().open(request, timeout=_TIMEOUT_S)
        except HTTPError as error:
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.discard()
            raise
    return answer


def _read_version(url: str, answer: HTTPResponse, size: int | None) -> _Version:
    tag = answer.headers.get("ETag", "")
    whole = _content_range(answer)[1] if answer.status == HTTPStatus.PARTIAL_CONTENT else None
    given = whole or answer.headers.get("Content-Length") or size
    if given is None:
        raise BadBundle(f"{url}: the server does not say how large the file is")
    if size is not None and int(given) != size:
        raise BadBundle(f"{url}: {int(given):,} bytes; {size:,} were expected")
    return _Version(url, tag if tag.startswith('"') else answer.headers.get("Last-Modified", ""), int(given))


def _continues(answer: HTTPResponse, version: _Version, known: _Version, start: int) -> bool:
    """Whether a partial answer is of the known version, and from there on; it need not repeat a date as validator."""
    same = version.size == known.size and version.validator in ("", known.validator)
    return same and _content_range(answer)[0] == str(start)


def _content_range(answer: HTTPResponse) -> tuple[str, str]:
    """First byte and size of the whole, of `Content-Range: bytes 10-19/20`; empty where there is none."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    return (found[1], found[2]) if found else ("", "")


def _append(answer: HTTPResponse, part: _Part, version: _Version, progress: Progress) -> None:
    with part.path.open("ab") as stream:
        while (done := stream.tell()) < version.size:
            progress(done, version.size)
            with _reaching(version.url):
                block = answer.read(min(_BLOCK, version.size - done))
            if not block:
                raise NotFetched(f"{version.url}: the connection ended after {done:,} of {version.size:,} bytes")
            stream.write(block)
        progress(version.size, version.size)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """What the network or the server does: raises NotFetched."""
    try:
        yield
    except HTTPError as error:
        raise NotFetched(f"{url}: {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise NotFetched(f"{url}: {getattr(reason, 'strerror', None) or reason or type(reason).__name__}") from None

"""DICOMweb over TLS: the server is believed by its authority, and shown this node's certificate."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dicomnode.dicomweb import make_line
from dicomnode.endpoints import SourceSettings
from dicomnode.errors import Misconfigured, Refused, Unavailable
from dicomnode.sections import TLSSettings
from tests.certificates import Identity, make_identity


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.headers.get("Authorization") != "Bearer wrong" else 403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("tls") / "node")


@pytest.fixture(scope="module")
def url(identity: Identity) -> Iterator[str]:
    """Of a server that wants to see a certificate of the same authority."""
    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=identity.ca)
    context.load_cert_chain(identity.certificate, identity.key)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}/dicom-web"
    server.shutdown()
    server.server_close()


def test_the_right_authority_and_our_certificate(url: str, identity: Identity) -> None:
    make_line(SourceSettings(name="a", url=url), None, identity.settings(), 5.0).echo()
    own_ca = SourceSettings(name="a", url=url, ca=identity.ca)
    make_line(own_ca, None, identity.settings(ca=None), 5.0).echo()
    with pytest.raises(Refused, match="403"):
        make_line(own_ca, "wrong", identity.settings(), 5.0).echo()


def test_another_authority_is_not_believed(url: str, identity: Identity, tmp_path: Path) -> None:
    stranger = make_identity(tmp_path / "stranger")
    for tls in (identity.settings(ca=stranger.ca), identity.settings(ca=None)):
        with pytest.raises(Unavailable, match="TLS: certificate verify failed"):
            make_line(SourceSettings(name="a", url=url), None, tls, 5.0).echo()


def test_the_name_is_checked(url: str, identity: Identity) -> None:
    other = url.replace("localhost", "127.0.0.1")
    with pytest.raises(Unavailable, match="TLS: certificate verify failed"):
        make_line(SourceSettings(name="a", url=other), None, identity.settings(), 5.0).echo()


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    source = SourceSettings(name="vna", url="https://a.example.org", ca=tmp_path / "none")
    with pytest.raises(Misconfigured, match="vna: TLS: No such file"):
        make_line(source, None, TLSSettings(), 5.0)

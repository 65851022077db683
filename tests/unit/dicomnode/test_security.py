"""TLS: every way in which certificate, key and authority can be wrong is named at start."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode.dimse.security import client_context, expires_at, server_context
from dicomnode.errors import Misconfigured
from tests.certificates import Identity, make_identity

NOW = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("tls") / "node")


def test_both_sides_ask_for_a_certificate_and_speak_nothing_below_tls_1_2(identity: Identity) -> None:
    server, client = server_context(identity.settings(), NOW), client_context(identity.settings(), NOW)
    for context in (server, client):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        old = [suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
        assert len(old) == 4
        assert all(name.startswith("ECDHE-") and "-GCM-" in name for name in old)
    assert client.check_hostname
    strict = identity.settings(minimum_version="1.3")
    assert server_context(strict, NOW).minimum_version is ssl.TLSVersion.TLSv1_3


def test_the_end_of_a_certificate_is_read(identity: Identity) -> None:
    assert expires_at(identity.certificate) - NOW == pytest.approx(timedelta(days=825), abs=timedelta(hours=2))
    assert expires_at(identity.ca) - NOW == pytest.approx(timedelta(days=3650), abs=timedelta(hours=2))


@pytest.mark.parametrize(
    ("days", "says"), [(-1, r"node\.crt: is not valid before 20"), (826, r"node\.crt: expired on 20")]
)
def test_a_certificate_out_of_its_time_is_named(identity: Identity, days: int, says: str) -> None:
    for make in (server_context, client_context):
        with pytest.raises(Misconfigured, match=rf"^tls\.certificate: .*{says}"):
            make(identity.settings(), NOW + timedelta(days=days))


@pytest.mark.parametrize(
    ("key", "spoil", "says"),
    [
        ("certificate", lambda path: path.unlink(), r"No such file or directory"),
        ("certificate", lambda path: path.write_text("hello"), r"holds no certificate in PEM"),
        ("certificate", lambda path: path.write_text(path.read_text()[:300]), r"holds no certificate in PEM"),
        ("key", lambda path: path.chmod(0o644), r"has mode 644, so that others may use it; chmod 600"),
        ("key", lambda path: path.write_text("hello"), r"is no private key in PEM that fits: .*"),
        ("ca", lambda path: path.write_text("hello"), r"holds no certificate in PEM"),
        ("ca", lambda path: path.unlink(), r"No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    identity: Identity, tmp_path: Path, key: str, spoil: Callable[[Path], object], says: str
) -> None:
    original = getattr(identity, key)
    path = tmp_path / original.name
    path.write_bytes(original.read_bytes())
    path.chmod(0o600)
    spoil(path)
    with pytest.raises(Misconfigured, match=rf"^tls\.{key}: {path}: {says}$"):
        server_context(identity.settings(**{key: path}), NOW)


def test_the_key_of_another_certificate_is_named(identity: Identity) -> None:
    other = identity.ca.with_suffix(".key")
    with pytest.raises(Misconfigured, match=r"^tls\.key: .*ca\.key: is not the key of .*node\.crt$"):
        server_context(identity.settings(key=other), NOW)


def test_a_setting_that_is_missing_is_named(identity: Identity) -> None:
    with pytest.raises(Misconfigured, match=r"^tls\.ca is not set, and TLS needs it$"):
        client_context(identity.settings(ca=None), NOW)


def test_a_destination_may_have_an_authority_of_its_own(identity: Identity) -> None:
    assert client_context(identity.settings(ca=None), NOW, identity.ca).get_ca_certs()

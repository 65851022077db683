"""TLS: what this node's side of it is made of. BCP 195 TLS Secure Transport Connection Profile (PS3.15 B.12)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicomnode.errors import Misconfigured
from dicomnode.sections import TLSSettings

# The suites that RFC 9325 4.2 recommends for TLS 1.2; those of TLS 1.3 are OpenSSL's own, all of them with AEAD.
_SUITES = ":".join(
    f"ECDHE-{key}-{cipher}" for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384") for key in ("ECDSA", "RSA")
)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_FORBIDDEN_MODE = 0o027  # of a private key: nobody but its owner writes it, nobody but owner and group reads it


RENEW_WITHIN = timedelta(days=30)
"""Before a certificate ends somebody is to be told."""


def server_context(tls: TLSSettings, now: datetime) -> ssl.SSLContext:
    """What the listener speaks: peers without a certificate that `tls.ca` signed end in the handshake.

    Raises Misconfigured, naming the file and what is wrong with it.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls, tls.ca, now)
    context.num_tickets = 0  # nobody resumes an association, and pynetdicom takes a ticket for data
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def web_context(tls: TLSSettings, now: datetime) -> ssl.SSLContext:
    """What the web interface speaks HTTPS with: browsers need no certificate. Raises Misconfigured."""
    context = _own_context(ssl.PROTOCOL_TLS_SERVER, tls, now)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def client_context(tls: TLSSettings, now: datetime, ca: Path | None = None) -> ssl.SSLContext:
    """What a destination is spoken to with: its certificate is of `ca` (None: of `tls.ca`) and carries its name.

    Raises Misconfigured, naming the file and what is wrong with it.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, tls, ca or tls.ca, now)


def expires_at(certificate: Path) -> datetime:
    """When the certificate of a PEM file expires; of a chain, its first. Raises Misconfigured."""
    return _validity(certificate)[1]


def explain(error: ssl.SSLError) -> str:
    """What went wrong, in OpenSSL's words, which hold nothing that the peer chose."""
    return (getattr(error, "verify_message", "") or error.reason or "protocol error").replace("_", " ").lower()


def _context(protocol: int, tls: TLSSettings, ca: Path | None, now: datetime) -> ssl.SSLContext:
    context = _own_context(protocol, tls, now)
    context.verify_mode = ssl.CERT_REQUIRED
    _load_authorities(context, _named("tls.ca", ca), now)
    return context


def _own_context(protocol: int, tls: TLSSettings, now: datetime) -> ssl.SSLContext:
    """With this node's certificate."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = _VERSIONS[tls.minimum_version]
    context.set_ciphers(_SUITES)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _load_identity(context, _named("tls.certificate", tls.certificate), _named("tls.key", tls.key))
    _check_dates(_named("tls.certificate", tls.certificate), now)
    return context


def _named(setting: str, path: Path | None) -> Path:
    """The path, readable; raises Misconfigured."""
    if path is None:
        raise Misconfigured(f"{setting} is not set, and TLS needs it")
    try:
        path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{setting}: {path}: {error.strerror}") from None
    return path


def _load_identity(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    mode = key.stat().st_mode
    if mode & _FORBIDDEN_MODE:
        raise Misconfigured(f"tls.key: {key}: has mode {mode & 0o777:o}, so that others may use it; chmod 600")

    def refuse() -> str:
        raise Misconfigured(f"tls.key: {key}: is protected by a password; store it without one")

    try:
        context.load_cert_chain(certificate, key, refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Misconfigured(f"tls.key: {key}: is not the key of {certificate}") from None
        _validity(certificate)  # where the certificate is at fault, it says so
        raise Misconfigured(f"tls.key: {key}: is no private key in PEM that fits: {explain(error)}") from None


def _check_dates(certificate: Path, now: datetime) -> None:
    begins, ends = _validity(certificate)
    if now >= ends:
        raise Misconfigured(f"tls.certificate: {certificate}: expired on {ends:%Y-%m-%d %H:%M} UTC")
    if now < begins:
        raise Misconfigured(f"tls.certificate: {certificate}: is not valid before {begins:%Y-%m-%d %H:%M} UTC")


def _load_authorities(context: ssl.SSLContext, ca: Path, now: datetime) -> None:
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise Misconfigured(f"tls.ca: {ca}: holds no certificate in PEM") from None
    ends = [_moment(str(authority["notAfter"])) for authority in context.get_ca_certs()]
    if ends and max(ends) <= now:
        raise Misconfigured(f"tls.ca: {ca}: expired on {max(ends):%Y-%m-%d %H:%M} UTC")


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def _validity(certificate: Path) -> tuple[datetime, datetime]:
    """From when and until when a certificate is valid (RFC 5280 4.1.2.5), which Python's ssl tells of peers' alone."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    found = re.search(f"{begin}.*?{end}", certificate.read_text(encoding="ascii", errors="replace"), re.DOTALL)
    try:
        (outer,) = _elements(ssl.PEM_cert_to_DER_cert(found[0] if found else ""))
        fields = [field for field in _elements(next(_elements(outer[1]))[1]) if field[0] != 0xA0]  # without the version
        begins, ends = (_time(*field) for field in _elements(fields[3][1]))
    except (ValueError, IndexError, StopIteration):
        raise Misconfigured(f"tls.certificate: {certificate}: holds no certificate in PEM") from None
    return begins, ends


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a sequence in DER (X.690 8.1): tag and content of each."""
    while der:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        yield tag, der[start : start + length]
        der = der[start + length :]


def _time(tag: int, content: bytes) -> datetime:
    """UTCTime (tag 0x17), whose years are 1950 to 2049, or GeneralizedTime."""
    text = content.decode("ascii")
    if tag == 0x17:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)

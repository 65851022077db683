"""Who may associate: decided before pynetdicom hears of a peer. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from dicomnode.sections import ListenerSettings, split_caller


class DenialKind(StrEnum):
    """What a peer was denied for."""

    TLS = "tls"
    CALLER = "caller"
    CALLED = "called"
    LIMIT = "limit"
    RATE = "rate"
    SIZE = "size"
    PROTOCOL = "protocol"
    SILENCE = "silence"
    REPORT = "report"


@dataclass(frozen=True)
class Denial:
    """Something that a peer was denied. reason: in words that no peer has any say in. Neither holds patient data."""

    kind: DenialKind
    calling_ae: str
    address: str
    reason: str


@dataclass(frozen=True)
class Request:
    """An association request, as far as admission looks at it. address: of the peer, without its port."""

    called_ae: str
    calling_ae: str
    address: str
    protocol_version: int


@dataclass(frozen=True)
class Rejection:
    """Why a request is rejected. result, source, diagnostic: of the A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    kind: DenialKind
    reason: str
    result: int
    source: int
    diagnostic: int

    def encode(self) -> bytes:
        """The A-ASSOCIATE-RJ PDU."""
        return struct.pack(">BxIxBBB", 0x03, 4, self.result, self.source, self.diagnostic)


_VERSION = Rejection(DenialKind.PROTOCOL, "protocol version not supported", 1, 2, 2)
_CALLED = Rejection(DenialKind.CALLED, "called AE title is not of this node", 1, 1, 7)
_CALLER = Rejection(DenialKind.CALLER, "calling AE title is not on the list", 1, 1, 3)
_ADDRESS = Rejection(DenialKind.CALLER, "calling AE title may not call from this address", 1, 1, 3)
_RATE = Rejection(DenialKind.RATE, "too many associations of this address in a minute", 2, 3, 1)
_LIMIT = Rejection(DenialKind.LIMIT, "too many associations at once", 2, 3, 2)
_LIMIT_OF_ADDRESS = Rejection(DenialKind.LIMIT, "too many associations of this address at once", 2, 3, 2)


class Admission:
    """The listener's door."""

    def __init__(self, settings: ListenerSettings) -> None:
        self._settings = settings
        self._callers = [split_caller(caller) for caller in settings.allowed_callers]
        self._rate = Rate(settings.max_associations_per_minute)

    def judge(self, request: Request, open_addresses: Sequence[str], now_s: float) -> Rejection | None:
        """Why a request is rejected, or None. open_addresses: the peer of each association that is open."""
        # The bits above the lowest are not to be tested (PS3.8 9.3.2): pynetdicom does.
        if request.protocol_version != 1:
            return _VERSION
        if self._settings.require_called_ae and request.called_ae != self._settings.ae_title:
            return _CALLED
        if self._callers and (unknown := self._judge_caller(request)):
            return unknown
        if not self._rate.admits(request.address, now_s):
            return _RATE
        if len(open_addresses) >= self._settings.max_associations:
            return _LIMIT
        if open_addresses.count(request.address) >= self._settings.max_associations_per_address:
            return _LIMIT_OF_ADDRESS
        return None

    def _judge_caller(self, request: Request) -> Rejection | None:
        networks = [network for title, network in self._callers if title == request.calling_ae]
        if not networks:
            return _CALLER
        address = _address(request.address)
        return None if any(network is None or address in network for network in networks) else _ADDRESS


class Rate:
    """So many a minute from each address; after a minute of rest as many at once."""

    def __init__(self, per_minute: int) -> None:
        self._interval_s = 60.0 / per_minute
        self._booked_until: dict[str, float] = {}

    def admits(self, address: str, now_s: float) -> bool:
        """Whether one more is within the rate; it then counts."""
        until = max(self._booked_until.get(address, now_s), now_s) + self._interval_s
        if until - now_s > 60.0 + 1e-6:
            return False
        if len(self._booked_until) >= 1000:
            self._booked_until = {known: end for known, end in self._booked_until.items() if end > now_s}
        self._booked_until[address] = until
        return True


def _address(text: str) -> IPv4Address | IPv6Address:
    """An address without its zone; an IPv4 address that a socket of both kinds shows as IPv6 is that IPv4 address."""
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def abort(reason: int) -> bytes:
    """The A-ABORT PDU of the service provider; reason as in PS3.8 9.3.8."""
    return struct.pack(">BxIxxBB", 0x07, 4, 2, reason)


UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2
INVALID_PARAMETER = 6

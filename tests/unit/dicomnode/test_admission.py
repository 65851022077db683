"""Admission: who is let in, and what the others are told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dicomnode.dimse.admission import Admission, DenialKind, Rate, Request
from dicomnode.sections import ListenerSettings, split_caller


def judge(
    settings: dict[str, Any], *, open_addresses: tuple[str, ...] = (), **request: Any
) -> tuple[DenialKind, tuple[int, int, int]] | None:
    """Kind, and result, source and reason as on the wire."""
    asked = Request(
        **{"called_ae": "PANCREAS", "calling_ae": "CT1", "address": "10.1.2.3", "protocol_version": 1, **request}
    )
    rejection = Admission(ListenerSettings(**settings)).judge(asked, open_addresses, 0.0)
    if rejection is None:
        return None
    pdu = rejection.encode()
    assert pdu[:7] == b"\x03\x00\x00\x00\x00\x04\x00"
    return rejection.kind, (pdu[7], pdu[8], pdu[9])


CALLED = (DenialKind.CALLED, (1, 1, 7))
CALLER = (DenialKind.CALLER, (1, 1, 3))
LIMIT = (DenialKind.LIMIT, (2, 3, 2))


def test_by_default_anybody_is_let_in_by_any_name() -> None:
    assert judge({}) is None
    assert judge({}, called_ae="NODE", calling_ae="") is None


def test_case_13_the_called_title_is_checked_on_demand() -> None:
    assert judge({"require_called_ae": True}, called_ae="NODE") == CALLED
    assert judge({"require_called_ae": True}) is None


@pytest.mark.parametrize(
    ("callers", "address", "answer"),
    [
        (["CT1"], "10.1.2.3", None),
        (["CT2"], "10.1.2.3", CALLER),
        (["ct1"], "10.1.2.3", CALLER),
        (["CT1@10.1.2.3"], "10.1.2.3", None),
        (["CT1@10.1.2.3"], "10.1.2.4", CALLER),
        (["CT1@10.1.0.0/16"], "10.1.255.4", None),
        (["CT1@10.1.0.0/16"], "10.2.0.4", CALLER),
        (["CT1@10.1.0.0/16"], "::ffff:10.1.255.4", None),
        (["CT1@10.9.0.0/16", "CT1@2001:db8::/32"], "2001:db8::7", None),
        (["CT1@fe80::/10"], "fe80::1%eth0", None),
        (["CT1@10.9.0.0/16", "CT2@10.1.0.0/16"], "10.1.2.3", CALLER),
    ],
)
def test_case_13_a_caller_is_known_by_title_and_address(callers: list[str], address: str, answer: object) -> None:
    assert judge({"allowed_callers": callers}, address=address) == answer


@pytest.mark.parametrize(
    "caller", ["CT1@", "CT1@hospital", "CT1@10.1.2.3/8", "@10.1.2.3", "SEVENTEEN_LETTERS", "CT\\1"]
)
def test_a_caller_that_cannot_be_meant_is_an_error_at_start(caller: str) -> None:
    with pytest.raises(ValidationError):
        ListenerSettings(allowed_callers=(caller,))


def test_a_title_may_hold_an_at_sign_where_a_network_follows() -> None:
    title, network = split_caller("A@B@10.0.0.0/8")
    assert (title, str(network)) == ("A@B", "10.0.0.0/8")


def test_case_12_associations_are_limited_in_all_and_by_address() -> None:
    settings = {"max_associations": 3, "max_associations_per_address": 2}
    assert judge(settings, open_addresses=("10.1.2.3", "10.1.2.4")) is None
    assert judge(settings, open_addresses=("10.1.2.3", "10.1.2.3")) == LIMIT
    assert judge(settings, open_addresses=("a", "b", "c")) == LIMIT


def test_a_request_of_another_version_of_the_protocol_is_rejected() -> None:
    assert judge({}, protocol_version=2) == (DenialKind.PROTOCOL, (1, 2, 2))


def test_case_12_a_flood_of_requests_is_told_to_come_later() -> None:
    admission = Admission(ListenerSettings(max_associations_per_minute=2))
    request = Request("PANCREAS", "CT1", "10.1.2.3", 1)
    assert [admission.judge(request, (), 0.0) for _ in range(2)] == [None, None]
    rejection = admission.judge(request, (), 0.0)
    assert rejection is not None
    assert (rejection.result, rejection.source, rejection.diagnostic) == (2, 3, 1)


def test_the_rate_is_of_each_address_and_recovers() -> None:
    rate = Rate(60)
    assert sum(rate.admits("a", 100.0) for _ in range(100)) == 60
    assert rate.admits("b", 100.0)
    assert [rate.admits("a", 101.0) for _ in range(2)] == [True, False]
    assert sum(rate.admits("a", 300.0) for _ in range(100)) == 60


def test_addresses_are_forgotten_when_their_minute_is_over() -> None:
    rate = Rate(1)
    for number in range(5000):
        rate.admits(str(number), float(number))
    assert len(rate._booked_until) <= 1001

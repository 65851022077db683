"""Associations that this node asks for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, Association, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from dicomnode.dimse.peers import Peer
from dicomnode.dimse.security import explain
from dicomnode.errors import Refused, Unavailable

_ALERT_S = 1.0  # in TLS 1.3 a server refuses a certificate only after its own side of the handshake is done


@contextmanager
def associate(
    peer: Peer,
    calling_ae: str,
    contexts: list[PresentationContext],
    timeout_s: float,
    handlers: Sequence[Any] = (),
    *,
    roles: Sequence[Any] = (),
) -> Iterator[Association]:
    """An established association, released at the end.

    handlers: of pynetdicom's events, for what the peer sends unasked. roles: negotiated for that (PS3.7 D.3.3.4).
    Raises Refused where the peer accepts none of the presentation contexts, Unavailable where there is no association.
    """
    entity = AE(calling_ae)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    association = entity.associate(
        peer.host,
        peer.port,
        contexts=contexts,
        ae_title=peer.ae_title,
        ext_neg=list(roles),
        evt_handlers=[*handlers, (evt.EVT_CONN_OPEN, _bound_in_time, [timeout_s])],
        tls_args=(peer.security, peer.certificate_name or peer.host) if peer.security else None,
    )
    if not association.is_established:
        answer = association.acceptor.primitive
        if answer is not None and not association.is_rejected and not association.accepted_contexts:
            names = ", ".join(sorted({UID(str(context.abstract_syntax)).name for context in contexts}))
            raise Refused(f"{peer} accepts no presentation context for {names}")
        raise Unavailable(f"{peer}: {_why_not(association) or _why_no_connection(peer, timeout_s)}")
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _bound_in_time(event: evt.Event, timeout_s: float) -> None:
    """Keep a time-out on the connection: pynetdicom takes it off, and a peer silent within a PDU would hold it."""
    event.assoc.dul.socket.socket.settimeout(timeout_s)


def _why_not(association: Association) -> str:
    """The peer's answer in words; empty where it gave none."""
    # pynetdicom overlooks a rejection that came, with the end of the connection, before it looked at the connection.
    answer = association.acceptor.primitive or association.dul.receive_pdu()
    if isinstance(answer, A_ASSOCIATE) and answer.result:
        return f"association rejected: {answer.result_str}, {answer.reason_str}"
    return ""


def _why_no_connection(peer: Peer, timeout_s: float) -> str:
    """Connect once more to say what is wrong, which pynetdicom only logs."""
    try:
        with socket.create_connection((peer.host, peer.port), timeout_s) as connection:
            if peer.security:
                with peer.security.wrap_socket(connection, server_hostname=peer.certificate_name or peer.host) as tls:
                    tls.settimeout(_ALERT_S)
                    tls.recv(1)
    except ssl.SSLError as error:
        return f"TLS: {explain(error)}"
    except TimeoutError:
        pass
    except OSError as error:
        return f"no connection: {error.strerror or error}"
    return "no association: timed out or aborted"

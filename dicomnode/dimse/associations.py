"""Associations that this node asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.uid import UID
from pynetdicom import AE, Association
from pynetdicom.presentation import PresentationContext

from dicomnode.dimse.peers import Peer
from dicomnode.errors import Refused, Unavailable


@contextmanager
def associate(
    peer: Peer, calling_ae: str, contexts: list[PresentationContext], timeout_s: float
) -> Iterator[Association]:
    """An established association, released at the end.

    Raises Refused where the peer accepts none of the presentation contexts, Unavailable where there is no association.
    """
    entity = AE(calling_ae)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    association = entity.associate(
        peer.host,
        peer.port,
        contexts=contexts,
        ae_title=peer.ae_title,
        tls_args=(peer.security, peer.host) if peer.security else None,
    )
    if not association.is_established:
        answer = association.acceptor.primitive
        if answer is not None and not association.is_rejected and not association.accepted_contexts:
            names = ", ".join(sorted({UID(str(context.abstract_syntax)).name for context in contexts}))
            raise Refused(f"{peer} accepts no presentation context for {names}")
        raise Unavailable(f"{peer}: {_why_not(association)}")
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _why_not(association: Association) -> str:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return f"association rejected: {answer.result_str}, {answer.reason_str}"
    return "no connection, or it was aborted"

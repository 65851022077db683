"""DICOM network services over pynetdicom: listen, echo, send. Upper layer: PS3.8; DIMSE: PS3.7."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, Association, build_context, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from dicomnode.deliveries import DeliveryEvent, Outcome, judge
from dicomnode.errors import Refused, Unavailable
from dicomnode.settings import ListenerSettings

STORED_SOP_CLASSES: tuple[str, ...] = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
"""What the listener accepts by C-STORE."""

_MOST_CONTEXTS = 128  # PS3.8 9.3.2: presentation context IDs are the odd numbers from 1 to 255
_PEER = re.compile(r"(?P<ae_title>[^@]{1,16})@(?P<host>\[[^\]]+\]|[^:@\s]+):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Peer:
    """An application entity to talk to."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


def parse_peer(text: str) -> Peer:
    """Read `AET@HOST:PORT`; raises ValueError."""
    found = _PEER.fullmatch(text)
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise ValueError(f"{text!r} is not AET@HOST:PORT")
    return Peer(found["ae_title"].strip(), found["host"].strip("[]"), int(found["port"]))


def listen(
    settings: ListenerSettings, transfer_syntaxes: Sequence[str], on_store: Callable[[evt.Event], Any]
) -> ThreadedAssociationServer:
    """Start the listener for C-ECHO, and C-STORE of CT in the given transfer syntaxes; it runs in threads of its own.

    Raises Unavailable where the port cannot be bound.
    """
    entity = AE(settings.ae_title)
    entity.require_called_aet = False
    entity.require_calling_aet = list(settings.allowed_callers)
    entity.maximum_associations = settings.max_associations
    entity.add_supported_context(Verification)
    for sop_class in STORED_SOP_CLASSES:
        entity.add_supported_context(sop_class, list(transfer_syntaxes))
    handlers: list[Any] = [(evt.EVT_C_STORE, on_store)]
    try:
        server = entity.start_server((settings.host, settings.port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise Unavailable(f"listener: {settings.host}:{settings.port}: {error.strerror}") from None
    assert server is not None  # noqa: S101 - only a blocking start returns None
    return server


def close(server: ThreadedAssociationServer, grace_s: float) -> None:
    """Stop listening, give associations in progress some seconds to end, then abort those that remain."""
    deadline = time.monotonic() + grace_s
    associations = server.active_associations
    server.shutdown()
    while any(association.is_alive() for association in associations) and time.monotonic() < deadline:
        time.sleep(0.05)
    for association in associations:
        if association.is_alive():
            association.abort()


def echo(peer: Peer, calling_ae: str, timeout_s: float) -> None:
    """C-ECHO; raises Unavailable or Refused with the reason when it is not answered by success."""
    with _associate(peer, calling_ae, [build_context(Verification)], timeout_s) as association:
        status = association.send_c_echo()
        if "Status" not in status or status.Status != 0x0000:
            raise Unavailable(f"{peer}: C-ECHO was not answered by success")


def send(peer: Peer, calling_ae: str, files: Sequence[Path], timeout_s: float) -> Iterator[tuple[Path, Outcome]]:
    """C-STORE the files over one association; yields what became of each.

    Every outcome rests on the status of that instance alone. A file that cannot be read, or for which the peer accepted
    no presentation context, is rejected at once, without a time-out. Raises Unavailable where no association could be
    made, Refused where the peer accepts none of the presentation contexts; then nothing was sent.
    """
    kinds: dict[Path, tuple[str, str]] = {}
    for file in files:
        try:
            kinds[file] = _kind(file)
        except Refused as error:
            yield file, Outcome(DeliveryEvent.REJECT, str(error))
    if not kinds:
        return
    proposed = dict.fromkeys((sop_class, _proposed(syntax)) for sop_class, syntax in kinds.values())
    if len(proposed) > _MOST_CONTEXTS:
        raise Refused(f"{len(proposed)} kinds of objects at once; an association carries at most {_MOST_CONTEXTS}")
    contexts = [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in proposed]
    with _associate(peer, calling_ae, contexts, timeout_s) as association:
        accepted = {(c.abstract_syntax, c.transfer_syntax[0]) for c in association.accepted_contexts}
        for file, (sop_class, syntax) in kinds.items():
            if any((sop_class, candidate) in accepted for candidate in _proposed(syntax)):
                yield file, _send_one(association, file)
            else:
                what = f"{UID(sop_class).name} in {UID(syntax).name}"
                yield file, Outcome(DeliveryEvent.REJECT, f"{peer} accepts no presentation context for {what}")


def _kind(file: Path) -> tuple[str, str]:
    """The SOP class and transfer syntax of a file; raises Refused, naming the file and the reason."""
    try:
        header = dcmread(file, specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
        if not header.get("SOPInstanceUID"):
            raise Refused(f"{file.name}: SOPInstanceUID is missing")
        return str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, EOFError, ValueError):
        raise Refused(f"{file.name}: not a DICOM file") from None
    except OSError as error:
        raise Refused(f"{file.name}: {error.strerror}") from None


def _proposed(transfer_syntax: str) -> tuple[str, ...]:
    """As the file is; an uncompressed one may be re-encoded for an archive that takes the default syntax only."""
    if transfer_syntax == ExplicitVRLittleEndian:
        return (transfer_syntax, str(ImplicitVRLittleEndian))
    return (transfer_syntax,)


def _send_one(association: Association, file: Path) -> Outcome:
    if not association.is_established:
        return Outcome(DeliveryEvent.POSTPONE, "the association ended before this instance was sent")
    try:
        status = association.send_c_store(dcmread(file))
    except (RuntimeError, OSError) as error:
        return Outcome(DeliveryEvent.POSTPONE, f"the association broke: {type(error).__name__}")
    except ValueError as error:
        return Outcome(DeliveryEvent.REJECT, f"cannot be encoded: {error}")
    if "Status" not in status:
        return Outcome(DeliveryEvent.POSTPONE, "no answer: timed out, aborted or invalid")
    return judge(int(status.Status))


@contextmanager
def _associate(
    peer: Peer, calling_ae: str, contexts: list[PresentationContext], timeout_s: float
) -> Iterator[Association]:
    entity = AE(calling_ae)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    association = entity.associate(peer.host, peer.port, contexts=contexts, ae_title=peer.ae_title)
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

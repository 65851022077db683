"""Echo and send to a peer over one association."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import Association, build_context
from pynetdicom.sop_class import (
    Verification,
)

from dicomnode.deliveries import DeliveryEvent, Outcome, judge
from dicomnode.dimse.associations import associate
from dicomnode.dimse.peers import Peer
from dicomnode.errors import Refused, Unavailable

_MOST_CONTEXTS = 128  # PS3.8 9.3.2: presentation context IDs are the odd numbers from 1 to 255


@dataclass(frozen=True)
class Line:
    """This node's line to an application entity. calling_ae: the title of this node.

    timeout_s: of the connection, the association and each answer.
    """

    peer: Peer
    calling_ae: str
    timeout_s: float

    def send(self, files: Sequence[Path]) -> Iterator[tuple[Path, Outcome]]:
        """C-STORE the files over one association, as `send` does."""
        return send(self.peer, self.calling_ae, files, self.timeout_s)


def echo(peer: Peer, calling_ae: str, timeout_s: float) -> None:
    """C-ECHO; raises Unavailable or Refused with the reason when it is not answered by success."""
    with associate(peer, calling_ae, [build_context(Verification)], timeout_s) as association:
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
    proposed = dict.fromkeys((sop_class, proposed_for(syntax)) for sop_class, syntax in kinds.values())
    if len(proposed) > _MOST_CONTEXTS:
        raise Refused(f"{len(proposed)} kinds of objects at once; an association carries at most {_MOST_CONTEXTS}")
    contexts = [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in proposed]
    with associate(peer, calling_ae, contexts, timeout_s) as association:
        accepted = {(c.abstract_syntax, c.transfer_syntax[0]) for c in association.accepted_contexts}
        for file, (sop_class, syntax) in kinds.items():
            if any((sop_class, candidate) in accepted for candidate in proposed_for(syntax)):
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


def proposed_for(transfer_syntax: str) -> tuple[str, ...]:
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
    except ValueError:  # whose text may quote a patient's data
        return Outcome(DeliveryEvent.REJECT, f"cannot be encoded for {association.acceptor.ae_title}")
    if "Status" not in status:
        return Outcome(DeliveryEvent.POSTPONE, "no answer: timed out, aborted or invalid")
    return judge(int(status.Status))

"""Fetching a series over our own association, by C-GET (PS3.4 C.4.3): the archive stores on it what we keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet

from dicomnode.dimse.associations import associate
from dicomnode.dimse.listening import STORED_SOP_CLASSES
from dicomnode.dimse.moving import last_of, series_identifier
from dicomnode.dimse.sending import Line
from dicomnode.errors import Refused, Unavailable
from dicomnode.pulling import FoundSeries, Keep, Retrieved, Tally


@dataclass(frozen=True)
class Intake:
    """What is taken in, and by whom. most_bytes: of a data set; a longer one breaks the association.

    sop_classes: of what is asked for.
    """

    keep: Keep
    transfer_syntaxes: Sequence[str]
    most_bytes: float
    sop_classes: Sequence[str] = STORED_SOP_CLASSES


def get(line: Line, series: FoundSeries, intake: Intake) -> Retrieved:
    """Fetch a series; each instance is kept before it is acknowledged.

    Raises Unavailable where the archive does not answer in time or the association breaks, Refused where it offers no
    C-GET. What was kept by then stays.
    """
    model = StudyRootQueryRetrieveInformationModelGet
    # One context for each syntax: of several the archive would choose one, and re-encode what is stored in another.
    storage = [build_context(kind, syntax) for kind in intake.sop_classes for syntax in intake.transfer_syntaxes]
    roles = [build_role(kind, scp_role=True) for kind in intake.sop_classes]
    taker = _Taker(intake)
    contexts = [build_context(model), *storage]
    with associate(line.peer, line.calling_ae, contexts, line.timeout_s, taker.handlers(), roles=roles) as association:
        if not any(context.abstract_syntax == model for context in association.accepted_contexts):
            raise Refused(f"{line.peer} offers no C-GET")
        try:
            result = last_of("C-GET", association.send_c_get(series_identifier(series), model))
        except Unavailable as error:
            raise (Unavailable("C-GET: a data set is too long") if taker.is_too_long else error) from None
        except (RuntimeError, ValueError) as error:
            raise Unavailable(f"C-GET: {type(error).__name__}") from None
    return replace(taker.tally.result(result.status), failed=max(result.failed, taker.tally.failed))


class _Taker:
    """Keeps what the archive stores on the association, and watches how long it gets."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._incoming = 0
        self.tally = Tally()
        self.is_too_long = False

    def handlers(self) -> list[Any]:
        """For pynetdicom's events."""
        return [(evt.EVT_C_STORE, self._store), (evt.EVT_PDU_RECV, self._watch)]

    def _store(self, event: evt.Event) -> Dataset:
        self._incoming = 0
        answer = Dataset()
        answer.Status = self._intake.keep(event.encoded_dataset())
        self.tally.add(answer.Status)
        return answer

    def _watch(self, event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            self._incoming += len(event.pdu)
        if self._incoming > self._intake.most_bytes:
            self.is_too_long = True
            event.assoc.dul.socket.close()

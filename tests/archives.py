"""Archives that the courier delivers to: real pynetdicom servers on free ports, well behaved or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, Association, build_role, evt
from pynetdicom.dimse_messages import N_ACTION_RSP
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

RESULTS = (SegmentationStorage, Comprehensive3DSRStorage)


class CommittingArchive:
    """A storage and storage commitment SCP named ARCHIVE.

    store_statuses, action_statuses: answered in turn, then success. on_action: called with the archive and the
    association while the request is being answered; after_action: when the answer is on its way.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str] = (*RESULTS, StorageCommitmentPushModel),
        store_statuses: Sequence[int] = (),
        action_statuses: Sequence[int] = (),
        on_action: Callable[[CommittingArchive, Association], None] | None = None,
        after_action: Callable[[CommittingArchive, Association], None] | None = None,
    ) -> None:
        self.received: list[str] = []
        self.actions: list[Dataset] = []
        self.callers: list[str] = []
        self._classes = classes
        self._store_statuses, self._action_statuses = list(store_statuses), list(action_statuses)
        self._on_action, self._after_action = on_action, after_action
        self.port = 0

    def start(self) -> int:
        """Listen on a free port, or on the one of before."""
        entity = AE("ARCHIVE")
        for sop_class in self._classes:
            entity.add_supported_context(sop_class)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._action),
            (evt.EVT_DIMSE_SENT, self._sent),
        ]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])
        return self.port

    def stop(self) -> None:
        self._server.shutdown()

    def report(self, failed: dict[str, int] | None = None, index: int = -1) -> tuple[Dataset, int]:
        """What the archive says of a transaction: the information and the event type."""
        action = self.actions[index]
        information = Dataset()
        information.TransactionUID = action.TransactionUID
        kept, lost = [], []
        for reference in action.ReferencedSOPSequence:
            item = Dataset()
            item.update(reference)
            reason = (failed or {}).get(reference.ReferencedSOPInstanceUID)
            if reason is None:
                kept.append(item)
            else:
                item.FailureReason = reason
                lost.append(item)
        information.ReferencedSOPSequence = kept
        if lost:
            information.FailedSOPSequence = lost
        return information, 2 if lost else 1

    def report_to(
        self, port: int, report: tuple[Dataset, int], *, title: str = "ARCHIVE", scp_role: bool = True
    ) -> int:  # fmt: skip
        """Open an association to the node as PS3.4 J.3.3 says, proposing the role of the SCP; returns its answer."""
        entity = AE(title)
        entity.add_requested_context(StorageCommitmentPushModel)
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if scp_role else []
        association = entity.associate("127.0.0.1", port, ext_neg=roles)
        assert association.is_established
        (context,) = association.accepted_contexts
        assert context.as_scp is scp_role
        status = send_report(association, report)
        association.release()
        return status

    def _store(self, event: evt.Event) -> int:
        status = self._store_statuses.pop(0) if self._store_statuses else 0x0000
        if status == 0x0000:
            self.received.append(event.dataset.SOPInstanceUID)
        return status

    def _action(self, event: evt.Event) -> tuple[int, None]:
        assert event.action_type == 1
        assert event.request.RequestedSOPInstanceUID == StorageCommitmentPushModelInstance
        self.callers.append(event.assoc.requestor.ae_title)
        status = self._action_statuses.pop(0) if self._action_statuses else 0x0000
        if status == 0x0000:
            self.actions.append(event.action_information)
            if self._on_action:
                self._on_action(self, event.assoc)
        return status, None

    def _sent(self, event: evt.Event) -> None:
        if isinstance(event.message, N_ACTION_RSP) and self._after_action:
            Thread(target=self._after_action, args=(self, event.assoc), daemon=True).start()


def send_report(association: Association, report: tuple[Dataset, int]) -> int:
    """Over an open association; returns the status of the answer."""
    information, event_type = report
    arguments = (information, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    answer, _ = association.send_n_event_report(*arguments)
    return int(answer.Status)


class SilentArchive:
    """Takes connections and never says a word."""

    def __init__(self) -> None:
        self.asked, self._stop = Event(), Event()

    def start(self) -> int:
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0))
        Thread(target=self._accept, daemon=True).start()
        return int(self._socket.getsockname()[1])

    def stop(self) -> None:
        self._stop.set()
        self._socket.close()

    def _accept(self) -> None:
        connection, _ = self._socket.accept()
        self.asked.set()
        self._stop.wait()
        connection.close()

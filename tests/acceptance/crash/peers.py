"""The modalities and the archive around a node that is killed all the time; they themselves are never killed."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from pathlib import Path
from queue import Queue
from threading import Lock, Thread
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, Association, StoragePresentationContexts, evt
from pynetdicom.sop_class import CTImageStorage, Verification

_TIMEOUT_S = 10.0
_PAUSE_S = 0.2


class Collector:
    """An archive: a storage SCP that keeps a digest of every data set that it answered by success, by its UID."""

    def __init__(self) -> None:
        self.received: dict[str, list[str]] = defaultdict(list)
        self.requests = 0
        self._lock = Lock()
        self._entity = AE("PACS")
        # As the node writes them, so that bytes can be compared.
        for context in StoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax), ExplicitVRLittleEndian)
        self._entity.add_supported_context(Verification)
        self._server: Any = None
        self.port = 0
        self.come_up()

    @property
    def is_up(self) -> bool:
        return self._server is not None

    def come_up(self) -> None:
        if self._server is None:
            handlers: list[Any] = [(evt.EVT_C_STORE, self._store)]
            self._server = self._entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
            self.port = int(self._server.server_address[1])

    def go_down(self) -> None:
        """Without a word to those that are sending."""
        if self._server is not None:
            associations = self._server.active_associations
            self._server.shutdown()
            for association in associations:
                association.abort()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        self.requests += 1
        digest = hashlib.sha256(event.request.DataSet.getvalue()).hexdigest()
        with self._lock:
            self.received[str(event.request.AffectedSOPInstanceUID)].append(digest)
        return 0x0000


class Modality(Thread):
    """Sends each series that it is given over associations of its own, and tries again until all is acknowledged."""

    def __init__(self, title: str, port: int) -> None:
        super().__init__(name=title, daemon=True)
        self.acknowledged: set[Path] = set()
        self.acknowledgements = 0
        self.sent = 0
        self.refused: list[int] = []
        self._title = title
        self._port = port
        self._work: Queue[list[Path] | None] = Queue()
        self._is_given_up = False

    @property
    def is_busy(self) -> bool:
        return self._work.unfinished_tasks > 0

    def give(self, series: list[Path]) -> None:
        self._work.put(series)

    def finish(self, within_s: float) -> bool:
        """Let it send what it was given; whether it came to the end."""
        self._work.put(None)
        self.join(within_s)
        self._is_given_up = True
        return not self.is_alive()

    def run(self) -> None:
        while (series := self._work.get()) is not None:
            left = list(series)
            while left and not self._is_given_up:
                left = left[self._send(left) :]
                if left:
                    time.sleep(_PAUSE_S)
            self._work.task_done()

    def _send(self, paths: list[Path]) -> int:
        """How many were acknowledged, one after the other, before the association was over."""
        entity = AE(self._title)
        entity.add_requested_context(CTImageStorage)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _TIMEOUT_S
        association = entity.associate("127.0.0.1", self._port, ae_title="PANCREAS")
        count = 0
        while count < len(paths) and association.is_established and self._store(association, paths[count]):
            count += 1
        if association.is_established:
            association.release()
        return count

    def _store(self, association: Association, path: Path) -> bool:
        self.sent += 1
        try:
            status = association.send_c_store(path)
        except (RuntimeError, OSError):
            return False
        if "Status" not in status:
            return False
        if status.Status != 0x0000:
            self.refused.append(status.Status)
            return False
        self.acknowledgements += 1
        self.acknowledged.add(path)
        return True

"""The archives that series are pulled from: one way to find and fetch, whatever they speak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dicomnode import dicomweb, dimse
from dicomnode.audit.messages import Entity
from dicomnode.auditor import Auditor
from dicomnode.dimse import SentQuery
from dicomnode.endpoints import SourceSettings
from dicomnode.pulling import FoundSeries, FoundStudy, Query, judge
from dicomnode.receiver import Receiver
from dicomnode.settings import Settings, read_secret
from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES


class Source(Protocol):
    """An archive that is asked and fetched from. Both raise Unavailable and Refused."""

    def find(self, query: Query) -> Iterator[FoundStudy]:
        """The studies that match, with their series; one by one, as they are taken."""

    def fetch(self, series: FoundSeries) -> str:
        """Have a series come in, and say what came; all that came is stored when this returns."""


@dataclass(frozen=True)
class Intake:
    """Where what is fetched goes, and who hears of it. most_bytes: of an instance."""

    receiver: Receiver
    auditor: Auditor
    most_bytes: float


def open_source(
    described: SourceSettings, settings: Settings, receiver: Receiver, auditor: Auditor, now: datetime
) -> Source:
    """The source that a table of the settings describes. Raises Misconfigured."""
    intake = Intake(receiver, auditor, settings.listener.max_dataset_mb * 1e6)
    archive, timeout_s = Entity.peer(*described.address), described.timeout_seconds
    if described.url:
        web = dicomweb.make_line(described, read_secret(described), settings.tls, timeout_s)
        return WebSource(described.name, web, archive, intake)
    peer = dimse.make_peer(described, settings.tls, now)
    line = dimse.Line(peer, settings.listener.ae_title, timeout_s)
    return MovingSource(line, archive, intake) if described.retrieve == "move" else GettingSource(line, archive, intake)


@dataclass(frozen=True)
class MovingSource:
    """C-FIND and C-MOVE: what is fetched comes in by the listener of this node, which has to run."""

    line: dimse.Line
    archive: Entity
    intake: Intake

    def find(self, query: Query) -> Iterator[FoundStudy]:
        """See `Source`."""
        return dimse.find(self.line, query, lambda sent: self.intake.auditor.asked(self.archive, sent))

    def fetch(self, series: FoundSeries) -> str:
        """See `Source`."""
        return judge(dimse.move(self.line, series), self.line.calling_ae)


@dataclass(frozen=True)
class GettingSource(MovingSource):
    """C-FIND and C-GET."""

    def fetch(self, series: FoundSeries) -> str:
        """See `Source`."""
        with self.intake.auditor.receiving(self.archive) as witness:

            def keep(blob: bytes) -> int:
                return self.intake.receiver.take(lambda: blob, self.line.peer.ae_title, witness)[0]

            intake = dimse.Intake(keep, DECODABLE_TRANSFER_SYNTAXES, self.intake.most_bytes)
            return judge(dimse.get(self.line, series, intake))


@dataclass(frozen=True)
class WebSource:
    """QIDO-RS and WADO-RS."""

    name: str
    line: dicomweb.Line
    archive: Entity
    intake: Intake

    def find(self, query: Query) -> Iterator[FoundStudy]:
        """See `Source`."""
        return dicomweb.find(self.line, query, self._witness)

    def fetch(self, series: FoundSeries) -> str:
        """See `Source`."""
        with self.intake.auditor.receiving(self.archive) as witness:

            def keep(blob: bytes) -> int:
                return self.intake.receiver.take_file(blob, self.name, witness).status

            return judge(dicomweb.fetch(self.line, series, keep, self.intake.most_bytes))

    def _witness(self, asked: str) -> None:
        # QIDO-RS searches the same information model, with a URL for its identifier.
        self.intake.auditor.asked(self.archive, SentQuery(dimse.STUDY_ROOT_FIND, "QIDO-RS", asked.encode()))

"""Having an archive send a series to a listener, by C-MOVE (PS3.4 C.4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove

from dicomnode.dimse.associations import associate
from dicomnode.dimse.sending import Line
from dicomnode.errors import Unavailable
from dicomnode.pulling import FoundSeries, Retrieved

PENDING = 0xFF00


def move(line: Line, series: FoundSeries) -> Retrieved:
    """Ask the archive to send a series to the AE title that this line calls with; they come over other associations.

    Raises Unavailable where it does not answer in time or the association breaks, Refused where it offers no C-MOVE.
    """
    contexts = [build_context(StudyRootQueryRetrieveInformationModelMove)]
    with associate(line.peer, line.calling_ae, contexts, line.timeout_s) as association:
        asked, model = series_identifier(series), StudyRootQueryRetrieveInformationModelMove
        try:
            return last_of("C-MOVE", association.send_c_move(asked, line.calling_ae, model))
        except (RuntimeError, ValueError) as error:
            raise Unavailable(f"C-MOVE: {type(error).__name__}") from None


def series_identifier(series: FoundSeries) -> Dataset:
    """The unique keys of a series (PS3.4 C.4.2.1.4)."""
    asked = Dataset()
    asked.QueryRetrieveLevel = "SERIES"
    asked.StudyInstanceUID, asked.SeriesInstanceUID = series.study_instance_uid, series.series_instance_uid
    return asked


def last_of(name: str, answers: Iterable[tuple[Dataset, Any]]) -> Retrieved:
    """The numbers of the final answer, or of the last before it that has some. Raises Unavailable."""
    counts = (0, 0, 0)
    for answer, _ in answers:
        status = answer.get("Status")
        if status is None:
            raise Unavailable(f"{name}: no answer in time, or the association broke")
        told = [answer.get(f"NumberOf{kind}Suboperations") for kind in ("Completed", "Failed", "Warning")]
        if any(count is not None for count in told):
            completed, failed, warnings = (int(count or 0) for count in told)
            counts = (completed, failed, warnings)
        if status != PENDING:
            return Retrieved(int(status), *counts)
    raise Unavailable(f"{name}: the answer has no end")

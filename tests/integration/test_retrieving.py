"""C-FIND, C-MOVE and C-GET at a real pynetdicom archive that answers as archives do, well and badly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dicomnode.dimse import Intake, Line, Peer, find, get, move
from dicomnode.dimse.moving import last_of
from dicomnode.errors import Refused, Unavailable
from dicomnode.pulling import FoundSeries, Query, Retrieved
from tests.phantom import PhantomOptions, write_series

SERIES = FoundSeries("1.2", "1.2.3", "CT", "", "", None)
SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
Handler = Callable[[evt.Event], Any]
MODELS = {
    evt.EVT_C_FIND: StudyRootQueryRetrieveInformationModelFind,
    evt.EVT_C_MOVE: StudyRootQueryRetrieveInformationModelMove,
    evt.EVT_C_GET: StudyRootQueryRetrieveInformationModelGet,
}


@pytest.fixture
def start() -> Iterator[Callable[..., Line]]:
    """Starts an archive that answers one kind of request by a handler; returns the node's line to it."""
    servers = []

    def make(event: evt.EventType, handler: Handler, timeout_s: float = 5.0) -> Line:
        entity = AE("ARCHIVE")
        entity.add_supported_context(MODELS.get(event, Verification))
        entity.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
        servers.append(entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(event, handler)]))
        return Line(Peer("ARCHIVE", "127.0.0.1", int(servers[-1].server_address[1])), "NODE", timeout_s)

    yield make
    for server in servers:
        server.shutdown()


@pytest.fixture
def slices(tmp_path: Path) -> list[Dataset]:
    return [pydicom.dcmread(path) for path in write_series(tmp_path, PhantomOptions((3, 8, 8)))]


def keep_in(kept: list[bytes], *statuses: int) -> Callable[[bytes], int]:
    answers = list(statuses)

    def keep(blob: bytes) -> int:
        kept.append(blob)
        return answers.pop(0) if answers else 0x0000

    return keep


def study(**attributes: Any) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", "1.2"
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return found


def series(uid: str, modality: str, **attributes: Any) -> Dataset:
    return study(QueryRetrieveLevel="SERIES", SeriesInstanceUID=uid, Modality=modality, **attributes)


def test_studies_and_their_series_are_found(start: Callable[..., Line]) -> None:
    asked: list[Dataset] = []

    def answer(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        asked.append(event.identifier)
        if event.identifier.QueryRetrieveLevel == "STUDY":
            yield 0xFF00, study(StudyDate="20260102", StudyDescription="Abdömen", SpecificCharacterSet="ISO_IR 100")
            yield 0xFF00, study(StudyInstanceUID="1.3", ModalitiesInStudy=["MR", "SR"])
        else:
            yield 0xFF00, series("1.2.3", "CT", NumberOfSeriesRelatedInstances=7, SeriesDescription="portal")
            yield 0xFF00, series("1.2.4", "SR")

    witnessed: list[Any] = []
    query = Query(patient_id="Ö*", modality="CT")
    (found,) = find(start(evt.EVT_C_FIND, answer), query, witnessed.append)
    assert (found.date, found.description) == ("20260102", "Abdömen")
    assert found.series == (FoundSeries("1.2", "1.2.3", "CT", "portal", "", 7),)
    assert len(witnessed) == len(asked) == 2  # nothing is asked of the MR
    assert (asked[0].PatientID, asked[0].ModalitiesInStudy, asked[0].StudyDate) == ("Ö*", "CT", "")
    assert (asked[1].StudyInstanceUID, asked[1].Modality) == ("1.2", "CT")


def test_an_archive_without_queries_or_that_fails(start: Callable[..., Line]) -> None:
    with pytest.raises(Refused, match="no presentation context"):
        list(find(start(evt.EVT_C_ECHO, lambda _: 0), Query(patient_id="1")))
    with pytest.raises(Unavailable, match="0xA700"):
        list(find(start(evt.EVT_C_FIND, lambda _: iter([(0xA700, None)])), Query(patient_id="1")))


def test_a_move_destination_that_the_archive_does_not_know(start: Callable[..., Line]) -> None:
    asked: list[tuple[str, Dataset]] = []

    def answer(event: evt.Event) -> Iterator[Any]:
        asked.append((event.move_destination, event.identifier))
        yield None, None  # pynetdicom answers 0xA801

    assert move(start(evt.EVT_C_MOVE, answer), SERIES).status == 0xA801
    ((destination, identifier),) = asked
    assert destination == "NODE"
    assert (identifier.QueryRetrieveLevel, identifier.StudyInstanceUID) == ("SERIES", "1.2")
    assert identifier.SeriesInstanceUID == "1.2.3"


def status(value: int | None, *counts: int) -> tuple[Dataset, None]:
    answer = Dataset()
    if value is not None:
        answer.Status = value
    for kind, count in zip(("Completed", "Failed", "Warning"), counts, strict=False):
        setattr(answer, f"NumberOf{kind}Suboperations", count)
    return answer, None


def test_the_numbers_of_a_move_are_the_last_that_are_told() -> None:
    assert last_of("C-MOVE", [status(0xFF00, 1, 0, 0), status(0xB000, 5, 2, 1)]) == Retrieved(0xB000, 5, 2, 1)
    assert last_of("C-MOVE", [status(0xFF00, 4, 1, 0), status(0xB000)]) == Retrieved(0xB000, 4, 1, 0)
    with pytest.raises(Unavailable, match="no answer"):
        last_of("C-MOVE", [status(0xFF00, 1), status(None)])


def test_an_archive_that_says_nothing_is_left(start: Callable[..., Line]) -> None:
    def hang(event: evt.Event) -> Iterator[Any]:
        event.assoc.dul.socket.close()
        yield 0

    with pytest.raises(Unavailable, match="C-GET: no answer"):
        get(start(evt.EVT_C_GET, hang, timeout_s=1.0), SERIES, Intake(keep_in([]), SYNTAXES, 1e9))


def send(slices: list[Dataset]) -> Handler:
    def answer(event: evt.Event) -> Iterator[Any]:
        assert event.identifier.SeriesInstanceUID == "1.2.3"
        yield len(slices)
        for one in slices:
            yield 0xFF00, one

    return answer


def test_a_series_comes_over_our_own_association(start: Callable[..., Line], slices: list[Dataset]) -> None:
    kept: list[bytes] = []
    line = start(evt.EVT_C_GET, send(slices))
    assert get(line, SERIES, Intake(keep_in(kept), SYNTAXES, 1e9)) == Retrieved(0x0000, 3)
    assert all(blob[128:132] == b"DICM" for blob in kept)


def test_what_cannot_be_kept_is_told_to_the_archive_and_counted(
    start: Callable[..., Line], slices: list[Dataset]
) -> None:
    line = start(evt.EVT_C_GET, send(slices))
    result = get(line, SERIES, Intake(keep_in([], 0x0000, 0xA700, 0xB000), SYNTAXES, 1e9))
    assert result == Retrieved(0xB000, 1, 1, 1, "0xA700")


def test_case_12_a_data_set_that_is_too_long_breaks_the_association(
    start: Callable[..., Line], slices: list[Dataset]
) -> None:
    slices[1].PixelData = bytes(1_000_000)
    kept: list[bytes] = []
    with pytest.raises(Unavailable, match="too long"):
        get(start(evt.EVT_C_GET, send(slices)), SERIES, Intake(keep_in(kept), SYNTAXES, 100_000))
    assert len(kept) == 1


def test_an_archive_that_takes_only_the_storage_offers_no_get(start: Callable[..., Line]) -> None:
    with pytest.raises(Refused, match="offers no C-GET"):
        get(start(evt.EVT_C_ECHO, lambda _: 0), SERIES, Intake(keep_in([]), SYNTAXES, 1e9))

"""C-FIND at a real pynetdicom archive that answers as archives do, well and badly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dsutils import decode
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from dicomnode.dimse import Peer, SentQuery, count_instances
from dicomnode.errors import Refused, Unavailable

Answers = Iterator[tuple[int, Dataset | None]]
ASKED = [("1.2", "1.2.3")]


class Archive:
    """Answers every request by `answer`."""

    def __init__(self, answer: Callable[[Dataset], Answers], sop_class: str) -> None:
        self.asked: list[Dataset] = []
        self._answer = answer
        entity = AE("ARCHIVE")
        entity.add_supported_context(sop_class)
        handlers: list[Any] = [(evt.EVT_C_FIND, self._find)]
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.peer = Peer("ARCHIVE", "127.0.0.1", int(self.server.server_address[1]))

    def _find(self, event: evt.Event) -> Answers:
        self.asked.append(event.identifier)
        yield from self._answer(event.identifier)


@pytest.fixture
def start() -> Iterator[Callable[..., Archive]]:
    started: list[Archive] = []

    def make(
        answer: Callable[[Dataset], Answers], sop_class: str = StudyRootQueryRetrieveInformationModelFind
    ) -> Archive:
        started.append(Archive(answer, sop_class))
        return started[-1]

    yield make
    for archive in started:
        archive.server.shutdown()


def match(asked: Dataset, **attributes: Any) -> tuple[int, Dataset]:
    found = Dataset()
    found.QueryRetrieveLevel = asked.QueryRetrieveLevel
    found.StudyInstanceUID, found.SeriesInstanceUID = asked.StudyInstanceUID, asked.SeriesInstanceUID
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return 0xFF00, found


def images(asked: Dataset, count: int) -> Answers:
    for number in range(count):
        yield match(asked, SOPInstanceUID=f"1.2.3.{number}")


def test_case_11_an_archive_says_how_many_instances_it_has(start: Callable[..., Archive]) -> None:
    counts = {"1.2.3": 200, "1.2.4": 7}
    archive = start(lambda asked: iter([match(asked, NumberOfSeriesRelatedInstances=counts[asked.SeriesInstanceUID])]))
    assert count_instances(archive.peer, "NODE", [("1.2", "1.2.3"), ("1.2", "1.2.4")], 5.0) == counts
    assert [asked.QueryRetrieveLevel for asked in archive.asked] == ["SERIES", "SERIES"]
    assert (archive.asked[0].StudyInstanceUID, archive.asked[0].SeriesInstanceUID) == ("1.2", "1.2.3")
    assert archive.asked[0].NumberOfSeriesRelatedInstances is None


def test_each_query_is_witnessed_as_it_is_sent(start: Callable[..., Archive]) -> None:
    archive, seen = start(lambda _: iter([])), list[SentQuery]()
    count_instances(archive.peer, "NODE", [("1.2", "1.2.3"), ("1.2", "1.2.4")], 5.0, witness=seen.append)
    assert {sent.sop_class_uid for sent in seen} == {StudyRootQueryRetrieveInformationModelFind}
    as_sent = [decode(BytesIO(sent.identifier), UID(sent.transfer_syntax_uid).is_implicit_VR, True) for sent in seen]
    assert as_sent == archive.asked


@pytest.mark.parametrize("told", [{}, {"NumberOfSeriesRelatedInstances": None}, {"NumberOfSeriesRelatedInstances": 0}])
def test_case_11_where_it_does_not_say_the_images_are_counted(
    start: Callable[..., Archive], told: dict[str, int | None]
) -> None:
    def answer(asked: Dataset) -> Answers:
        if asked.QueryRetrieveLevel == "SERIES":
            yield match(asked, **told)
        else:
            yield from images(asked, 30)

    assert count_instances(start(answer).peer, "NODE", ASKED, 5.0) == {"1.2.3": 30}


def test_case_11_a_series_that_the_archive_does_not_know_has_no_count(start: Callable[..., Archive]) -> None:
    assert count_instances(start(lambda _: iter([])).peer, "NODE", ASKED, 5.0) == {"1.2.3": None}


def test_case_11_an_answer_about_another_series_is_no_answer(start: Callable[..., Archive]) -> None:
    other = start(lambda asked: iter([match(asked, SeriesInstanceUID="9.9", NumberOfSeriesRelatedInstances=5)]))
    assert count_instances(other.peer, "NODE", ASKED, 5.0) == {"1.2.3": None}


@pytest.mark.parametrize("status", [0xA700, 0xC001, 0xFE00])
def test_case_11_a_failure_is_no_count(start: Callable[..., Archive], status: int) -> None:
    with pytest.raises(Unavailable, match=f"0x{status:04X}"):
        count_instances(start(lambda _: iter([(status, None)])).peer, "NODE", ASKED, 5.0)


def test_case_11_an_archive_that_is_away_or_offers_no_query(start: Callable[..., Archive]) -> None:
    archive = start(lambda _: iter([]), Verification)
    with pytest.raises(Refused, match="no presentation context"):
        count_instances(archive.peer, "NODE", ASKED, 5.0)
    with pytest.raises(Unavailable):
        count_instances(Peer("ARCHIVE", "127.0.0.1", 1), "NODE", ASKED, 5.0)

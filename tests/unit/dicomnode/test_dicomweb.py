"""QIDO-RS and WADO-RS: what is asked, and what becomes of answers, good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dicomnode.dicomweb import Line, Malformed, PartReader, fetch, find
from dicomnode.errors import Refused, Unavailable
from dicomnode.pulling import FoundSeries, Query, Retrieved

URL = "http://archive.example.org/dicom-web"
SERIES = FoundSeries("1.2", "1.2.3", "CT", "", "", None)
KIND = 'multipart/related; type="application/dicom"; boundary=b'
Answer = Callable[[httpx.Request], httpx.Response]


def line(answer: Answer) -> Line:
    return Line(URL, 3.0, transport=httpx.MockTransport(answer))


def match(**values: Any) -> dict[str, Any]:
    tags = {"study": "0020000D", "series": "0020000E", "modality": "00080060", "modalities": "00080061"}
    tags |= {"text": "0008103E", "instances": "00201209", "date": "00080020"}
    return {
        tags[name]: {"vr": "XX", "Value": value if isinstance(value, list) else [value]}
        for name, value in values.items()
    }


def found(*matches: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, text=json.dumps(matches)) if matches else httpx.Response(204)


class Server:
    """Has 450 studies with a CT and an SR each; gives at most `page` of them at once, or ignores pages."""

    def __init__(self, page: int = 1000, *, knows_pages: bool = True) -> None:
        self.requests: list[httpx.Request] = []
        self._page, self._knows_pages = page, knows_pages

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.endswith("/series"):
            study = request.url.path.split("/")[-2]
            here = [
                match(series=f"{study}.1", modality="CT", instances=7, text="portal"),
                match(series=f"{study}.2", modality="SR"),
            ]
        else:
            here = [match(study=f"1.{number}", date="20260102", modalities=["CT", "SR"]) for number in range(450)]
            here.append(match(study="2.1", modalities=["MR"]))
        if self._knows_pages:
            begin = int(request.url.params["offset"])
            here = here[begin : begin + min(self._page, int(request.url.params["limit"]))]
        return found(*here)


@pytest.mark.parametrize("server", [Server(), Server(page=100), Server(knows_pages=False)], ids=["", "small", "none"])
def test_every_study_is_found_whatever_pages_a_server_gives(server: Server) -> None:
    studies = list(find(line(server), Query(modality="CT")))
    assert [study.study_instance_uid for study in studies] == [f"1.{number}" for number in range(450)]
    assert studies[7].series == (FoundSeries("1.7", "1.7.1", "CT", "portal", "", 7),)


def test_what_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    server, witnessed = Server(), list[str]()
    next(find(line(server), Query("47*", "A 1", modality="CT"), witnessed.append))
    first = server.requests[0]
    assert str(first.url).startswith(f"{URL}/studies?")
    assert first.headers["accept"] == "application/dicom+json"
    asked = {"PatientID": "47*", "AccessionNumber": "A 1", "ModalitiesInStudy": "CT"}
    assert asked.items() <= dict(first.url.params).items()
    assert "StudyDate" not in first.url.params
    assert len(witnessed) == len(server.requests)
    assert witnessed[0].startswith("/studies?PatientID=47*&AccessionNumber=A%201&")
    assert first.url.query.startswith(b"PatientID=47*&AccessionNumber=A%201&")


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (httpx.Response(401), Refused, "credentials"),
        (httpx.Response(404), Refused, "see url"),
        (httpx.Response(302), Refused, "302"),
        (httpx.Response(503), Unavailable, "503"),
        (httpx.Response(200, text="<html>"), Unavailable, "no DICOM JSON"),
        (httpx.Response(200, text="{}"), Unavailable, "no DICOM JSON"),
    ],
)
def test_answers_that_are_none(answer: httpx.Response, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        list(find(line(lambda _: answer), Query("1")))
    if answer.status_code != 200:
        with pytest.raises(error, match=said):
            fetch(line(lambda _: answer), SERIES, lambda _: 0, 1e9)


def body(*parts: bytes, ends: bool = True) -> bytes:
    head = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + (b"--b--" if ends else b"")


def test_a_series_is_kept_part_by_part_as_it_is_stored_there() -> None:
    kept: list[bytes] = []
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=body(b"one\r\n--", b"", b"\r\n--"), headers={"content-type": KIND})

    def keep(blob: bytes) -> int:
        kept.append(blob)
        return 0x0000 if blob else 0xC000

    assert fetch(line(answer), SERIES, keep, 1e9) == Retrieved(0xB000, 2, 1, 0, "0xC000")
    assert kept == [b"one\r\n--", b"", b"\r\n--"]
    assert asked[0].url.path == "/dicom-web/studies/1.2/series/1.2.3"
    assert asked[0].headers["accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert asked[0].headers["accept-encoding"] == "identity"


def test_case_12_a_part_that_is_too_long_is_not_kept() -> None:
    answer = httpx.Response(200, content=body(b"x" * 100, b"y" * 10), headers={"content-type": KIND})
    assert fetch(line(lambda _: answer), SERIES, lambda _: 0, 50) == Retrieved(0xB000, 1, 1, 0, "0xA900")


@pytest.mark.parametrize("content", [body(b"one", ends=False), b"--c--", b""])
def test_case_10_a_body_that_breaks_off_is_no_success(content: bytes) -> None:
    answer = httpx.Response(200, content=content, headers={"content-type": KIND})
    with pytest.raises(Unavailable, match="boundary"):
        fetch(line(lambda _: answer), SERIES, lambda _: 0, 1e9)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_body_is_taken_apart_in_pieces_of_any_size(size: int) -> None:
    content = b"\r\n" + body(b"\r\n--", b"two\r\n-", bytes(300)) + b"\r\nbehind it"
    reader, parts = PartReader(KIND, 1e9), []
    for begin in range(0, len(content), size):
        parts += reader.feed(content[begin : begin + size])
    reader.close()
    assert [part.content for part in parts] == [b"\r\n--", b"two\r\n-", bytes(300)]
    assert {part.media_type for part in parts} == {"application/dicom"}


@pytest.mark.parametrize(
    "kind", ["", "multipart/related", "application/dicom", f"multipart/related; boundary={'b' * 300}"]
)
def test_a_body_without_a_usable_boundary(kind: str) -> None:
    with pytest.raises(Malformed):
        PartReader(kind, 1e9)

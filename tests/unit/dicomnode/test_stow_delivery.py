"""Results by STOW-RS: what goes out, and what each answer of an archive makes of a delivery."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from dicomnode.courier import Courier, Route
from dicomnode.deliveries import DeliveryEvent
from dicomnode.dicomweb import Line, PartReader, judge_answer, make_line
from dicomnode.discretion import set_up_logging
from dicomnode.endpoints import DestinationSettings
from dicomnode.errors import Misconfigured
from dicomnode.sections import TLSSettings
from dicomnode.settings import read_secret
from tests.outboxes import SEG, SR, Outbox

ACCEPT, POSTPONE, REJECT = DeliveryEvent.ACCEPT, DeliveryEvent.POSTPONE, DeliveryEvent.REJECT
URL = "http://archive.example.org/dicom-web"
Answer = Callable[[httpx.Request], httpx.Response]


def stored(uid: str = SEG, warning: int | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return {"00081199": {"vr": "SQ", "Value": [item]}}


def failed(uid: str = SEG, reason: int | None = 0x0110) -> dict[str, Any]:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


@pytest.mark.parametrize(
    ("status", "module", "event", "said"),
    [
        (200, stored(), ACCEPT, "HTTP 200"),
        (200, {}, POSTPONE, "without a word"),  # as Orthanc answers where it left a part out
        (200, {"00081199": {"vr": "SQ"}, "00081198": {"vr": "SQ"}}, POSTPONE, "without a word"),
        (200, stored(warning=0xB000), ACCEPT, "0xB000 warning: coercion"),
        (202, stored(warning=0xB007), ACCEPT, "0xB007 warning"),
        (200, failed(), POSTPONE, "0x0110"),  # whatever the status says of the whole
        (202, failed(reason=0xA700), POSTPONE, "0xA700"),
        (202, {}, POSTPONE, "without a word"),
        (202, stored("9.9"), POSTPONE, "without a word"),
        (409, failed(reason=0xA700), POSTPONE, "0xA700"),
        (409, failed(reason=0xA900), REJECT, "0xA900"),
        (409, failed(reason=0xC122), REJECT, "0xC122"),
        (409, failed(reason=0x0122), REJECT, "0x0122 refused by the archive: SOP class not supported"),
        (409, failed(reason=0x0111), ACCEPT, "0x0111 warning: duplicate"),
        (409, failed(reason=None), POSTPONE, "0x0110"),
        (409, {}, REJECT, "not stored"),
        (400, {}, REJECT, "not understood"),
        (401, {}, REJECT, "credentials"),
        (403, {}, REJECT, "may not"),
        (404, {}, REJECT, "url"),
        (413, {}, REJECT, "larger"),
        (308, {}, REJECT, "correct the url"),
        (408, {}, POSTPONE, "HTTP 408"),
        (429, {}, POSTPONE, "HTTP 429"),
        (500, {}, POSTPONE, "HTTP 500"),
        (503, {}, POSTPONE, "HTTP 503"),
        (501, {}, REJECT, "HTTP 501"),
    ],
)
def test_case_26_an_answer_makes_a_delivery_sent_tried_again_or_failed(
    status: int, module: dict[str, Any], event: DeliveryEvent, said: str
) -> None:
    outcome = judge_answer(status, module, SEG, URL)
    assert outcome.event is event
    assert said in outcome.reason


def answer_by(status: int, module: dict[str, Any]) -> httpx.Response:
    return httpx.Response(status, text=json.dumps(module), headers={"content-type": "application/dicom+json"})


def take_all(request: httpx.Request) -> httpx.Response:
    return answer_by(200, stored(SR if SR.encode() in request.content else SEG))


class Archive:
    """Answers each request by `answer`, and keeps what came."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self.answer = answer or take_all

    def line(self, **changes: Any) -> Line:
        return Line(URL, 3.0, transport=httpx.MockTransport(self._take), **changes)

    def _take(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)

    def files(self) -> list[bytes | None]:
        found = []
        for request in self.requests:
            reader = PartReader(request.headers["content-type"], 1e9)
            found += [part.content for part in reader.feed(request.content)]
            reader.close()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path, port=1)
    yield made
    made.database.close()


def courier(bench: Outbox, archive: Archive, **changes: Any) -> Courier:
    route = Route("archive", archive.line(**changes), bench.patience)
    return Courier(bench.database, bench.archive, route, lambda: bench.now, draw=lambda: 1.0)


def test_results_go_byte_for_byte_each_in_a_request_of_its_own(bench: Outbox) -> None:
    archive = Archive()
    assert courier(bench, archive).step() == 2
    assert bench.states() == ["sent", "sent"]
    assert archive.files() == [bench.archive.path(f"{uid}.dcm").read_bytes() for uid in (SEG, SR)]
    assert {(str(request.url), request.method) for request in archive.requests} == {(f"{URL}/studies", "POST")}
    assert archive.requests[0].headers["accept"] == "application/dicom+json"
    assert b"\r\nContent-Type: application/dicom\r\n\r\n" in archive.requests[0].content


def test_case_26_what_one_result_fails_with_is_no_word_on_the_other(bench: Outbox) -> None:
    answers = {SEG: (409, failed(SEG, 0xC000)), SR: (200, stored(SR))}

    def answer(request: httpx.Request) -> httpx.Response:
        return answer_by(*answers[SR if SR.encode() in request.content else SEG])

    courier(bench, Archive(answer)).step()
    assert bench.states() == ["failed", "sent"]
    assert bench.alarms() == [("delivery", "archive")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("no"), "no connection"),
        (httpx.ReadTimeout("slow"), "no answer in time"),
        (httpx.RemoteProtocolError("cut"), "the connection broke"),
    ],
)
def test_case_25_an_archive_that_is_away_or_breaks_off_is_tried_again(
    bench: Outbox, error: Exception, said: str
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    archive = Archive(fail)
    courier(bench, archive).step()
    assert bench.states() == ["pending", "pending"]
    assert all(said in reason for reason in bench.reasons())
    assert len(archive.requests) == 1  # the rest waits with it
    bench.now += timedelta(seconds=10)
    archive.answer = take_all
    courier(bench, archive).step()
    assert bench.states() == ["sent", "sent"]


def test_what_is_shown_to_the_archive(bench: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    archive = Archive()
    courier(bench, archive, user="node", secret="pass word").step()
    assert archive.requests[0].headers["authorization"].startswith("Basic ")
    bench.retry(bench.ids()[0])
    courier(bench, archive, secret="t0ken").step()
    assert archive.requests[-1].headers["authorization"] == "Bearer t0ken"
    assert "t0ken" not in repr(archive.line(secret="t0ken"))


def test_case_34_the_log_holds_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("httpx"), "level", logging.INFO)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    set_up_logging()
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)


def test_secrets_come_from_a_file_or_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("t0ken\n", encoding="utf-8")
    by_file = DestinationSettings(name="a", url="https://a.example.org/", secret_file=file)
    by_variable = DestinationSettings(name="a", url="https://a.example.org", user="u", secret_variable="PACS_SECRET")
    assert read_secret(by_file, {}) == "t0ken"
    assert read_secret(by_variable, {"PACS_SECRET": "word"}) == "word"
    with pytest.raises(Misconfigured, match="PACS_SECRET holds no secret"):
        read_secret(by_variable, {})
    file.unlink()
    with pytest.raises(Misconfigured, match="No such file"):
        read_secret(by_file, {})
    assert make_line(by_file, None, TLSSettings(), 1.0).url == "https://a.example.org"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ae_title": "A", "host": "h"}, "port missing"),
        ({"url": "https://a", "ae_title": "A"}, "ae_title does not go with url"),
        ({"url": "https://a", "storage_commitment": True}, "by DIMSE"),
        ({"url": "https://a", "user": "u"}, "user needs a password"),
        ({"url": "https://u:p@a/"}, "pattern"),
        ({"ae_title": "A", "host": "h", "port": 104, "secret_file": "f"}, "secret_file does not go with ae_title"),
    ],
)
def test_a_destination_is_one_kind_or_the_other(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DestinationSettings(name="a", **keys)

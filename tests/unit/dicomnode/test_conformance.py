"""The conformance statement says what the code does, and its tables of contexts what really goes over the wire."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE

from dicomnode import dimse
from dicomnode.conformance import TABLES, fill
from dicomnode.dimse import commitment
from dicomnode.errors import Unavailable
from dicomnode.pulling import FoundSeries, Query
from dicomnode.sections import ListenerSettings
from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES
from pipeline.page import Content
from pipeline.pdf import to_pdf
from pipeline.priors import NONE
from pipeline.seg import to_seg
from pipeline.series import read_volume
from pipeline.sr import to_sr
from tests.fakes import CARD
from tests.house import House
from tests.results import AT, describe, mark, scan_phantom

DOCUMENT = Path(__file__).parents[3] / "docs" / "conformance.md"
DECODABLE = tuple(map(str, DECODABLE_TRANSFER_SYNTAXES))
LINE = dimse.Line(dimse.Peer("PACS", "127.0.0.1", 104), "PANCREAS", 0.1)

Contexts = set[tuple[str, frozenset[str]]]


def by_syntax(contexts: list[dimse.Context]) -> Contexts:
    return {(one.sop_class, frozenset(one.transfer_syntaxes)) for one in contexts}


def test_the_tables_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert fill(text) == text, "python -m dicomnode.conformance docs/conformance.md"
    assert re.findall(r"<!-- table: ([a-z-]+) -->", text) == list(TABLES)


def test_a_table_that_is_not_so_is_set_right() -> None:
    place = "<!-- table: transfer-syntaxes -->\n{}<!-- end -->\nrest"
    filled = fill(place.format("| wrong |\n"))
    assert "| RLE Lossless | 1.2.840.10008.1.2.5 | imagecodecs |" in filled
    assert "wrong" not in filled
    assert filled == fill(place.format(""))


def test_what_the_statement_says_is_accepted_is_what_the_listener_accepts(tmp_path: Path) -> None:
    house = House(tmp_path)
    services = [house.receiver.service(DECODABLE), commitment.reports(lambda *_: 0)]
    listener = dimse.listen(ListenerSettings(port=0), services)
    contexts = listener.ae.supported_contexts
    dimse.close(listener, 0.0)
    offered = {(str(one.abstract_syntax), frozenset(map(str, one.transfer_syntax))) for one in contexts}
    assert by_syntax(dimse.accepted(DECODABLE)) == offered
    notified = {str(one.abstract_syntax) for one in contexts if one.scp_role}
    assert notified == {one.sop_class for one in dimse.accepted(DECODABLE) if one.role == "SCU"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The presentation contexts of every association that is asked for; none is made."""
    contexts: list[Any] = []

    def associate(_entity: AE, *_: Any, **options: Any) -> None:
        contexts.extend(options["contexts"])
        raise Unavailable("enough")

    monkeypatch.setattr(AE, "associate", associate)
    return contexts


def write_results(folder: Path) -> list[Path]:
    """SEG, SR and PDF, as the worker writes them."""
    series = scan_phantom(folder)
    segmentation, measurement = mark(series), describe(mark(series))
    seg = to_seg(series, segmentation, CARD, AT, measurement=measurement)
    sr = to_sr(series, measurement, CARD, AT, seg=seg)
    page = Content(read_volume(series), segmentation, measurement, CARD, NONE)
    made = (seg, sr, to_pdf(series, page, AT, sources=[seg, sr]))
    paths = [folder / f"{result.Modality}.dcm" for result in made]
    for path, result in zip(paths, made, strict=True):
        result.save_as(path, enforce_file_format=True)
    return paths


def test_what_the_statement_says_is_proposed_is_what_is_asked_for(tmp_path: Path, asked: list[Any]) -> None:
    series = FoundSeries("1.2", "1.2.3", "CT", "", "", None)
    request = commitment.Request("2.25.1", [])
    for act in (
        lambda: dimse.echo(LINE.peer, LINE.calling_ae, LINE.timeout_s),
        lambda: list(LINE.send(write_results(tmp_path))),
        lambda: commitment.ask(LINE, request, lambda *_: 0, linger_s=0.0),
        lambda: list(dimse.find(LINE, Query(modality="CT"))),
        lambda: dimse.move(LINE, series),
        lambda: dimse.get(LINE, series, dimse.Intake(lambda _: 0, DECODABLE, 1e9)),
    ):
        with pytest.raises(Unavailable, match="enough"):
            act()
    found: dict[str, set[str]] = {}
    for context in asked:
        found.setdefault(str(context.abstract_syntax), set()).update(map(str, context.transfer_syntax))
    assert by_syntax(dimse.proposed(DECODABLE)) == {(kind, frozenset(syntaxes)) for kind, syntaxes in found.items()}

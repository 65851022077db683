"""The tables of the conformance statement (PS3.2 Annex N), made from what the code does.

`python -m dicomnode.conformance docs/conformance.md` writes them where the file has `<!-- table: NAME -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel
from pydicom.datadict import tag_for_keyword
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import UID

from dicomnode import dimse
from dicomnode.deliveries import DeliveryEvent, Outcome, judge, judge_failure
from dicomnode.endpoints import DestinationSettings, SourceSettings
from dicomnode.sections import CourierSettings, ListenerSettings, QuerySourceSettings, TLSSettings
from pipeline import provenance, seg, sr
from pipeline.decoders import DECODERS

_PLACE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

_DECODABLE = tuple(map(str, DECODERS))

_PARAMETERS: dict[str, type[BaseModel]] = {
    "listener": ListenerSettings,
    "tls": TLSSettings,
    "query_source": QuerySourceSettings,
    "sources": SourceSettings,
    "destinations": DestinationSettings,
    "courier": CourierSettings,
}

_REACTIONS = {
    DeliveryEvent.ACCEPT: "sent",
    DeliveryEvent.POSTPONE: "tried again after a while",
    DeliveryEvent.REJECT: "failed for good, with an alarm",
    DeliveryEvent.DENY: "sent again, at most `courier.commitment_sendings` times",
}
_SAID_ALREADY = re.compile(r"0x[0-9A-F]{4} |refused by the archive: |not committed: | in the archive$")


def fill(text: str) -> str:
    """The text with every table as it has to be now. Raises KeyError for a name that there is none of."""
    return _PLACE.sub(lambda place: f"{place[1]}{TABLES[place[2]]()}\n{place[3]}", text)


def _contexts(contexts: Iterable[dimse.Context]) -> str:
    cells = (
        (one.activity, UID(one.sop_class).name, one.sop_class, _syntaxes(one), one.role, one.negotiation or "none")
        for one in contexts
    )
    return _table(("activity", "SOP class", "UID", "transfer syntaxes", "role", "extended negotiation"), cells)


def _syntaxes(context: dimse.Context) -> str:
    if context.transfer_syntaxes == _DECODABLE:
        return "each of those [for images](#transfer-syntaxes-for-images)"
    return ", ".join(UID(syntax).name for syntax in context.transfer_syntaxes)


def _services() -> str:
    """Each SOP class once, with whether this node uses and provides it (PS3.2 N.1.2)."""
    roles: dict[str, set[str]] = {}
    for context in (*dimse.accepted(_DECODABLE), *dimse.proposed(_DECODABLE)):
        roles.setdefault(context.sop_class, set()).add(context.role)
    cells = (
        (UID(kind).name, kind, *("yes" if role in held else "" for role in ("SCU", "SCP")))
        for kind, held in roles.items()
    )
    return _table(("SOP class", "UID", "SCU", "SCP"), cells)


def _transfer_syntaxes() -> str:
    cells = ((UID(syntax).name, str(syntax), decoder or "none needed") for syntax, decoder in DECODERS.items())
    return _table(("transfer syntax", "UID", "decoder"), cells)


def _reactions(judge_one: Callable[[int], Outcome]) -> str:
    """What becomes of every status there can be, those together that are alike."""
    alike: dict[tuple[str, str], list[int]] = {}
    for status in range(1 << 16):
        outcome = judge_one(status)
        meaning = _SAID_ALREADY.sub("", outcome.reason)
        alike.setdefault((meaning, _REACTIONS[outcome.event]), []).append(status)
    rows = sorted(alike.items(), key=lambda item: (len(item[1]) > 1 << 12, item[1][0]))
    return _table(("status", "means", "then"), ((_span(statuses), *key) for key, statuses in rows))


def _span(statuses: list[int]) -> str:
    """Statuses in ascending order in words, those in a row as a range."""
    if len(statuses) > 1 << 12:
        return "any other"
    starts = [status for status in statuses if status - 1 not in statuses]
    ends = [status for status in statuses if status + 1 not in statuses]
    pairs = zip(starts, ends, strict=True)
    return ", ".join(f"0x{one:04X}" if one == last else f"0x{one:04X} to 0x{last:04X}" for one, last in pairs)


def _parameters() -> str:
    cells = (
        (f"`{name}.{key}`", _default(field.get_default(call_default_factory=True)), field.description or "")
        for name, section in _PARAMETERS.items()
        for key, field in section.model_fields.items()
    )
    return _table(("parameter", "default", "meaning"), cells)


def _default(value: object) -> str:
    unset = value in (None, "", ()) or str(value) == "PydanticUndefined"
    return "" if unset else str(value).lower() if isinstance(value, bool) else str(value)


def _codes() -> str:
    """The codes that this node chooses, its own scheme's last."""
    found = {code for module in (provenance, seg, sr) for code in _codes_in(vars(module).values())}
    own = provenance.CODING_SCHEME
    rows = sorted(found, key=lambda code: (code.scheme_designator == own, code.scheme_designator, code.value))
    cells = ((code.value, code.scheme_designator, code.meaning) for code in rows)
    return _table(("code", "scheme", "meaning"), cells)


def _codes_in(values: Iterable[object]) -> Iterator[Code]:
    for value in values:
        if isinstance(value, Code):
            yield value
        elif isinstance(value, dict):
            yield from _codes_in(value.values())


def _copied() -> str:
    """The attributes that results take from their source."""
    cells = ((f"{Tag(tag_for_keyword(keyword) or 0)}", keyword) for keyword in provenance.COPIED)
    return _table(("tag", "attribute"), cells)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


TABLES: dict[str, Callable[[], str]] = {
    "services": _services,
    "parameters": _parameters,
    "accepted": lambda: _contexts(dimse.accepted(_DECODABLE)),
    "proposed": lambda: _contexts(dimse.proposed(_DECODABLE)),
    "transfer-syntaxes": _transfer_syntaxes,
    "store-statuses": lambda: _reactions(judge),
    "commitment-failures": lambda: _reactions(judge_failure),
    "copied": _copied,
    "codes": _codes,
}
"""Every table by its name, in the order of the statement."""


if __name__ == "__main__":
    statement = Path(sys.argv[1])
    statement.write_text(fill(statement.read_text(encoding="utf-8")), encoding="utf-8")

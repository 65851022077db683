"""The audit messages of a trail, read back and checked against the standard's schema."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

from dicomnode.audit.trail import day_files

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "expected" / "audit-message.rng"))


def parse(xml: bytes) -> etree._Element:
    """A message that fits the schema."""
    message = etree.fromstring(xml)
    SCHEMA.assertValid(message)
    return message


def read_lines(folder: Path) -> list[bytes]:
    """The lines of a trail, in order."""
    return [line for file in day_files(folder) for line in file.read_bytes().splitlines()]


def read_messages(folder: Path) -> list[etree._Element]:
    """The messages of a trail, in order; each fits the schema."""
    return [parse(line[line.index(b"<?xml") :]) for line in read_lines(folder)]


def kind(message: etree._Element) -> str:
    """The meaning of the event's type, or else of the event."""
    found = message.find("EventIdentification/EventTypeCode")
    if found is None:
        found = message.find("EventIdentification/EventID")
    return str(found.get("originalText"))

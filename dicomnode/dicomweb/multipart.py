"""Many DICOM files in one body: multipart/related (RFC 2387, PS3.18 8.6.1.2), taken apart as it comes."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

DICOM = "application/dicom"


class Malformed(ValueError):
    """The body is not what its media type says; the text says what is wrong and holds nothing of it."""


@dataclass(frozen=True)
class Part:
    """One part of a body. content: None where it is longer than allowed; then it was not kept."""

    media_type: str
    content: bytes | None


class PartReader:
    """Takes a body apart, piece by piece; never holds more than one part, and of that not more than allowed."""

    def __init__(self, content_type: str, most_bytes: float) -> None:
        """content_type: of the body, with its boundary. most_bytes: of a part. Raises Malformed."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind.lower() != b"multipart/related" or not boundary:
            raise Malformed("not multipart/related with a boundary")
        self._most_bytes = most_bytes
        self._field = self._value = b""
        self._ready: list[Part] = []
        self._ended = False
        self._begin()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_begin": self._begin_header,
                    "on_header_field": self._add_to_field,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_part_data": self._add,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise Malformed("a boundary that is too long") from None

    @property
    def held(self) -> int:
        """Bytes of the part that is being read."""
        return self._content.getbuffer().nbytes

    def feed(self, piece: bytes) -> list[Part]:
        """The parts that end with this piece of the body. Raises Malformed."""
        try:
            self._parser.write(piece)
        except FormParserError:
            raise Malformed("the body does not keep to its boundary") from None
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """The body is over. Raises Malformed where its last boundary is missing: it was cut off."""
        if not self._ended:
            raise Malformed("the body ends before its last boundary")

    def _begin(self) -> None:
        self._content, self._size, self._media_type = BytesIO(), 0, DICOM

    def _begin_header(self) -> None:
        self._field = self._value = b""

    def _add_to_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-type":
            self._media_type = parse_options_header(self._value)[0].decode("latin-1").lower()

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size <= self._most_bytes:
            self._content.write(memoryview(data)[start:end])
        else:
            self._content = BytesIO()

    def _end_part(self) -> None:
        content = self._content.getvalue() if self._size <= self._most_bytes else None
        self._ready.append(Part(self._media_type, content))
        self._content = BytesIO()

    def _end(self) -> None:
        self._ended = True

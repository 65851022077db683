"""Is this a stream that may be given to its decoder? Most decoders allocate what a damaged header asks for, some never
end on a stream that is cut off, and libjpeg-turbo makes up what is missing."""

from __future__ import annotations

import re
import struct

_START, _FRAME, _TABLES, _SCAN, _RESTART_INTERVAL, _COMMENT = 0xFFD8, 0xFFC3, 0xFFC4, 0xFFDA, 0xFFDD, 0xFFFE
_APPLICATION = range(0xFFE0, 0xFFF0)
_JFIF, _JFIF_MAJOR_VERSION = b"JFIF\0", 1
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte nor a restart
_END = b"\xff\xd9"
_LS_FRAME = 0xFFF7
_LS_MARKER = re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]")  # neither a stuffed bit nor a restart
_CODESTREAM = b"\xff\x4f\xff\x51"
_MOST_TILES = 4096
_RLE_HEADER = 64


def check_jpeg_lossless(stream: bytes, rows: int, columns: int) -> None:
    """Raise ValueError unless `stream` is one scan of one component by Process 14, of that size (ITU-T T.81 B.2, H)."""
    position, tables, component = 2, set[int](), None
    if stream[:2] != struct.pack(">H", _START):
        raise ValueError("no JPEG stream")
    while True:
        marker, length = struct.unpack_from(">HH", stream, position)
        segment = stream[position + 4 : position + 2 + length]
        if len(segment) != length - 2:
            raise ValueError("a JPEG segment is cut off")
        position += 2 + length
        if marker == _FRAME:
            component = _read_frame(segment, rows, columns)
        elif marker == _TABLES:
            tables |= _read_tables(segment)
        elif marker == _SCAN:
            _check_scan(segment, component, tables)
            return _check_end(stream, position)
        elif marker not in (_RESTART_INTERVAL, _COMMENT, *_APPLICATION):
            raise ValueError(f"JPEG marker {marker:04X} in a lossless stream")
        elif segment.startswith(_JFIF) and segment[len(_JFIF)] != _JFIF_MAJOR_VERSION:
            raise ValueError("an unknown version of JFIF")


def _read_frame(segment: bytes, rows: int, columns: int) -> int:
    precision, height, width, components, component, sampling, _ = struct.unpack(">BHHBBBB", segment)
    if (height, width, components, sampling) != (rows, columns, 1, 0x11) or not 2 <= precision <= 16:
        raise ValueError(f"a JPEG frame of {height} x {width} x {components}, {precision} bits")
    return int(component)


def _read_tables(segment: bytes) -> set[int]:
    """Numbers of the Huffman tables in a segment; a table must be a prefix code of differences of 0 to 16 bits."""
    numbers, position = set(), 0
    while position < len(segment):
        counts = segment[position + 1 : position + 17]
        symbols = segment[position + 17 : position + 17 + sum(counts)]
        codes = sum(count << (16 - length) for length, count in enumerate(counts, start=1))
        if len(counts) < 16 or len(symbols) != sum(counts) or codes > 1 << 16 or max(symbols, default=17) > 16:
            raise ValueError("a damaged JPEG Huffman table")
        numbers.add(segment[position])
        position += 17 + len(symbols)
    return numbers


def _check_scan(segment: bytes, component: int | None, tables: set[int]) -> None:
    components, selected, table, predictor, end, point_transform = struct.unpack(">BBBBBB", segment)
    is_known = components == 1 and selected == component and table >> 4 in tables
    if not is_known or not 1 <= predictor <= 7 or end != 0 or point_transform > 15:
        raise ValueError("a damaged JPEG scan header")


def _check_end(stream: bytes, position: int) -> None:
    found = _MARKER.search(stream, position)
    if found is None or not found.group().endswith(_END):
        raise ValueError("the JPEG scan is cut off or damaged")


def check_jpeg_ls(stream: bytes, rows: int, columns: int) -> None:
    """Raise ValueError unless `stream` is one whole JPEG-LS scan of one component of that size (ITU-T T.87 C)."""
    position, is_sized = 2, False
    if stream[:2] != struct.pack(">H", _START):
        raise ValueError("no JPEG-LS stream")
    while True:
        marker, length = struct.unpack_from(">HH", stream, position)
        segment = stream[position + 4 : position + 2 + length]
        if marker < 0xFFC0 or len(segment) != length - 2:
            raise ValueError("a JPEG-LS segment is cut off or damaged")
        position += 2 + length
        if marker == _LS_FRAME:
            precision, height, width, components = struct.unpack_from(">BHHB", segment)
            if (height, width, components) != (rows, columns, 1) or not 2 <= precision <= 16:
                raise ValueError(f"a JPEG-LS frame of {height} x {width} x {components}, {precision} bits")
            is_sized = True
        elif marker == _SCAN:
            break
    found = _LS_MARKER.search(stream, position)
    if not is_sized or found is None or not found.group().endswith(_END):
        raise ValueError("the JPEG-LS scan is cut off or damaged")


def check_jpeg_2000(stream: bytes, rows: int, columns: int) -> None:
    """Raise ValueError unless `stream` holds a JPEG 2000 image of one component of that size (ITU-T T.800 A.5.1)."""
    start = stream.find(_CODESTREAM)  # within a JP2 file, which PS3.5 A.4.4 forbids and some write
    if start < 0:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top, tile_width, tile_height, *_, components, _, step_x, step_y = struct.unpack_from(
        ">8IH3B", stream, start + 8
    )
    if (bottom - top, right - left, components, step_x, step_y) != (rows, columns, 1, 1, 1):
        raise ValueError(f"a JPEG 2000 image of {bottom - top} x {right - left} x {components}")
    if min(tile_width, tile_height) < 1 or rows * columns > _MOST_TILES * tile_width * tile_height:
        raise ValueError(f"JPEG 2000 tiles of {tile_height} x {tile_width}")


def check_rle(stream: bytes, sample_bytes: int) -> None:
    """Raise ValueError unless the header of an RLE frame gives a segment for each byte of a sample (PS3.5 G.5)."""
    count, *offsets = struct.unpack_from("<16I", stream)
    ends = [*offsets[1:sample_bytes], len(stream)]
    if count != sample_bytes or offsets[0] != _RLE_HEADER or any(a >= b for a, b in zip(offsets, ends, strict=False)):
        raise ValueError("a damaged RLE header")

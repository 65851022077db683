"""What a hostile or broken peer makes of valid bytes, as a strategy: flips, cuts, lies about lengths, other VRs."""

from __future__ import annotations

from hypothesis import strategies as st

_LENGTHS = (0, 1, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_VRS = (b"SQ", b"OB", b"OW", b"UN", b"UT", b"DS", b"IS", b"PN", b"FD", b"AT", b"\0\0", b"zz")
_DELIMITERS = (b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xff\xff\xff")

Mutation = tuple[str, float, int, int]


def mutations() -> st.SearchStrategy[list[Mutation]]:
    """Some changes: the kind, where as a share of the length, and two numbers that say how."""
    kinds = st.sampled_from(("flip", "byte", "cut", "remove", "repeat", "length", "vr", "delimiter"))
    number = st.integers(0, 255)
    return st.lists(st.tuples(kinds, st.floats(0, 1, width=32), number, number), min_size=1, max_size=6)


def mutate(valid: bytes, changes: list[Mutation]) -> bytes:
    """The bytes, changed; of a place beyond the first 4 kB of the file most often something before it."""
    blob = bytearray(valid)
    for kind, share, first, second in changes:
        if not blob:
            break
        reach = len(blob) if first & 1 else min(len(blob), 4096)  # where the structure is
        _change(blob, kind, int(share * (reach - 1)), (first, second))
    return bytes(blob)


def _change(blob: bytearray, kind: str, place: int, how: tuple[int, int]) -> None:
    first, second = how
    if kind == "flip":
        blob[place] ^= 1 << (second & 7)
    elif kind == "byte":
        blob[place] = second
    elif kind == "cut":
        del blob[place:]
    elif kind == "remove":
        del blob[place : place + second]
    elif kind == "repeat":
        blob[place:place] = blob[place : place + second]
    elif kind == "length":
        width, order = (2, 4)[second & 1], ("little", "big")[second >> 1 & 1]
        value = _LENGTHS[first % len(_LENGTHS)] & (256**width - 1)
        blob[place : place + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
    elif kind == "vr":
        found = max(blob.rfind(vr, 0, place) for vr in (b"UI", b"DS", b"IS", b"CS", b"US", b"OW", b"LO"))
        found = max(found, 0)
        blob[found : found + 2] = _VRS[second % len(_VRS)]
    else:
        mark = _DELIMITERS[second % len(_DELIMITERS)]
        blob[place : place + len(mark)] = mark

"""What is looked at before a file gets memory and time; absurd files as a whole are in the acceptance tests."""

import zlib

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pipeline import limits
from pipeline.limits import Excessive, check_file, header_part

_DATA_SET = bytes(3 << 20)  # so even that one step of input inflates to more than one step of output


def deflated(data_set: bytes, padding: bytes) -> bytes:
    """As much of a deflated DICOM file as is looked at: its group length, its syntax, the stream."""
    meta = DeflatedExplicitVRLittleEndian.encode()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = deflater.compress(data_set) + deflater.flush()
    return bytes(140) + len(meta).to_bytes(4, "little") + meta + stream + padding


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0" * 100_000])
def test_a_deflated_data_set_ends_where_its_stream_does(padding: bytes) -> None:
    check_file(deflated(_DATA_SET, padding))
    assert header_part(deflated(_DATA_SET, padding))


def test_a_deflated_data_set_that_inflates_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_INFLATED_BYTES", 1 << 20)
    with pytest.raises(Excessive, match="more than 1 MiB"):
        check_file(deflated(_DATA_SET, b"\0"))

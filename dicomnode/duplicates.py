"""Whether two files hold the same data set, though their bytes differ."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.errors import UNREADABLE

PLAIN = frozenset((ImplicitVRLittleEndian, ExplicitVRLittleEndian))
"""Transfer syntaxes in which the value of an element is the same bytes."""


def is_same_data_set(first: bytes, second: bytes) -> bool:
    """Whether two DICOM files differ in nothing but how the same values are encoded, value for value.

    Both must be of a transfer syntax of `PLAIN`: what is compressed could be compared by decoding only, and counts as
    different. So does what cannot be read.
    """
    try:
        one, other = dcmread(BytesIO(first)), dcmread(BytesIO(second))
        syntaxes = {one.file_meta.TransferSyntaxUID, other.file_meta.TransferSyntaxUID}
        return syntaxes <= PLAIN and _values(one) == _values(other)
    except UNREADABLE:
        return False


def _values(dataset: Dataset) -> dict[BaseTag, Any]:
    """The bytes of every element, sequences by item; group lengths, which depend on the encoding, are left out."""
    tags = dataset.keys()
    return {tag: _value(dataset, tag) for tag in tags if tag.element}


def _value(dataset: Dataset, tag: BaseTag) -> Any:
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and (raw.VR or _vr(tag)) != "SQ":
        return raw.value or b""
    element = dataset[tag]
    return [_values(item) for item in element.value] if element.VR == "SQ" else element.value or b""


def _vr(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"

"""Small valid seeds, made from the phantom: DICOM files of several kinds, and what a modality says to a listener."""

from __future__ import annotations

import struct
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from tests.phantom import PhantomOptions, write_multiframe, write_series

_SHAPE = (3, 32, 40)
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)


@cache
def series(syntax: str) -> tuple[bytes, ...]:
    """The files of a series of three slices."""
    with TemporaryDirectory() as folder:
        paths = write_series(Path(folder), PhantomOptions(_SHAPE, (8.0, 8.0, 8.0), transfer_syntax=syntax))
        return tuple(path.read_bytes() for path in paths)


@cache
def multiframe() -> bytes:
    with TemporaryDirectory() as folder:
        return write_multiframe(Path(folder) / "one.dcm", PhantomOptions(_SHAPE, (8.0, 8.0, 8.0))).read_bytes()


@cache
def conversation() -> tuple[bytes, ...]:
    """What a C-STORE takes, each part answered: association request, command and data set, release (PS3.8 9.3)."""
    instance = pydicom.dcmread(BytesIO(series(ExplicitVRLittleEndian)[0]))
    return _request(), _store(instance), _release()


def _request() -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "FUZZ", "PANCREAS"
    context = build_context(CTImageStorage, ExplicitVRLittleEndian)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received = 16382
    implementation.implementation_class_uid = "1.2.3.4"  # type: ignore[assignment]
    primitive.user_information = [longest, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _store(instance: pydicom.Dataset) -> bytes:
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 1, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    encoded = series(ExplicitVRLittleEndian)[0]
    primitive.DataSet = BytesIO(encoded[144 + int.from_bytes(encoded[140:144], "little") :])
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    pdus = []
    for data in message.encode_msg(1, 16382):
        pdu = P_DATA_TF()
        pdu.from_primitive(data)
        pdus.append(bytes(pdu.encode()))
    return b"".join(pdus)


def _release() -> bytes:
    return bytes(A_RELEASE_RQ().encode())


def answers(received: bytes) -> list[int]:
    """The types of the PDUs that a listener sent."""
    types = []
    while len(received) >= 6:
        kind, length = struct.unpack_from(">BxI", received)
        types.append(kind)
        received = received[6 + length :]
    return types

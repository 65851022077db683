"""Every presentation context that this node accepts and proposes, in one place: for the conformance statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import DEFAULT_TRANSFER_SYNTAXES
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dicomnode.dimse.commitment import SYNTAXES
from dicomnode.dimse.listening import STORED_SOP_CLASSES
from dicomnode.dimse.sending import proposed_for

RESULT_SOP_CLASSES: tuple[str, ...] = (SegmentationStorage, Comprehensive3DSRStorage, EncapsulatedPDFStorage)
"""What the node makes, and sends."""

_ANY = tuple(DEFAULT_TRANSFER_SYNTAXES)
_RESULTS = proposed_for(ExplicitVRLittleEndian)


@dataclass(frozen=True)
class Context:
    """A presentation context, or several that differ only in their transfer syntax. role: of this node."""

    activity: str
    sop_class: str
    transfer_syntaxes: tuple[str, ...]
    role: str
    negotiation: str = ""


def accepted(decodable: Sequence[str]) -> list[Context]:
    """What the listener accepts; decodable: transfer syntaxes of images."""
    reports = Context("Report of a commitment", StorageCommitmentPushModel, SYNTAXES, "SCU", "SCP/SCU Role Selection")
    images = [Context("Receive images", kind, tuple(decodable), "SCP") for kind in STORED_SOP_CLASSES]
    return [Context("Verification", Verification, _ANY, "SCP"), *images, reports]


def proposed(decodable: Sequence[str]) -> list[Context]:
    """What this node proposes; decodable: transfer syntaxes of images, each in a context of its own."""
    find, move, get = (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
        StudyRootQueryRetrieveInformationModelGet,
    )
    return [
        Context("Verification", Verification, _ANY, "SCU"),
        *(Context("Send results", kind, _RESULTS, "SCU") for kind in RESULT_SOP_CLASSES),
        Context("Ask for a commitment", StorageCommitmentPushModel, SYNTAXES, "SCU"),
        Context("Count instances, find studies", find, _ANY, "SCU"),
        Context("Have a series sent", move, _ANY, "SCU"),
        Context("Fetch a series", get, _ANY, "SCU"),
        *(
            Context("Fetch a series", kind, tuple(decodable), "SCP", "SCP/SCU Role Selection")
            for kind in STORED_SOP_CLASSES
        ),
        Context("Fetch earlier reports", Comprehensive3DSRStorage, _RESULTS, "SCP", "SCP/SCU Role Selection"),
    ]

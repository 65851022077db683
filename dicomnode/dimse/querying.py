"""Asking an archive how many instances it has of a series, by C-FIND (PS3.4 Annex C)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pynetdicom import Association, build_context
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicomnode.arrivals import MOST_INSTANCES, credible_count
from dicomnode.dimse.associations import associate
from dicomnode.dimse.peers import Peer
from dicomnode.errors import Unavailable

_PENDING = (0xFF00, 0xFF01)  # PS3.4 C.4.1.1.4


@dataclass(frozen=True)
class SentQuery:
    """A query as it goes over the network. identifier: encoded in the transfer syntax."""

    sop_class_uid: str
    transfer_syntax_uid: str
    identifier: bytes


Witness = Callable[[SentQuery], None]


def count_instances(
    peer: Peer,
    calling_ae: str,
    series: Sequence[tuple[str, str]],
    timeout_s: float,
    *,
    witness: Witness = lambda _: None,
) -> dict[str, int | None]:
    """How many instances the peer has of each series; None: it does not know the series.

    series: Study and Series Instance UID of each. witness: told of each query before it is sent. Returns the counts by
    Series Instance UID: Number of Series Related Instances, or where the peer leaves this optional key empty, the
    instances counted one by one.
    Raises Unavailable where the peer does not answer or answers by a failure, Refused where it offers no C-FIND.
    """
    with associate(
        peer, calling_ae, [build_context(StudyRootQueryRetrieveInformationModelFind)], timeout_s
    ) as association:
        return {uid: _count(association, study, uid, witness) for study, uid in series}


def _count(association: Association, study_instance_uid: str, series_instance_uid: str, witness: Witness) -> int | None:
    asked = _identifier("SERIES", study_instance_uid, series_instance_uid)
    asked.NumberOfSeriesRelatedInstances = None
    found = _find(association, asked, witness)
    matches = [match for match in found if match.get("SeriesInstanceUID") == series_instance_uid]
    if not matches:
        return None
    told = _told(matches[0])
    if told is not None:
        return told
    asked = _identifier("IMAGE", study_instance_uid, series_instance_uid)
    asked.SOPInstanceUID = None
    return credible_count([len({match.get("SOPInstanceUID") for match in _find(association, asked, witness)})])


def _told(match: Dataset) -> int | None:
    try:
        return credible_count([int(match.NumberOfSeriesRelatedInstances)])
    except (AttributeError, TypeError, ValueError):
        return None


def _identifier(level: str, study_instance_uid: str, series_instance_uid: str) -> Dataset:
    """The unique keys of the levels above, and of a series its own (PS3.4 C.6.2.1, C.4.1.2.1)."""
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    asked.StudyInstanceUID, asked.SeriesInstanceUID = study_instance_uid, series_instance_uid
    return asked


def _find(association: Association, asked: Dataset, witness: Witness) -> Iterator[Dataset]:
    """Every match. Raises Unavailable where the answer breaks off, ends in a failure or does not end."""
    witness(_as_sent(association, asked))
    try:
        answers = association.send_c_find(asked, StudyRootQueryRetrieveInformationModelFind)
        for number, (answer, match) in enumerate(answers):
            status = answer.get("Status")
            if status == 0x0000:
                return
            if status not in _PENDING or number > MOST_INSTANCES:
                how = "no answer in time" if status is None else f"status 0x{status:04X}"
                raise Unavailable(f"C-FIND: {how}")
            if match is not None:
                yield match
    except (RuntimeError, ValueError) as error:
        raise Unavailable(f"C-FIND: {type(error).__name__}") from None
    raise Unavailable("C-FIND: the answer has no end")


def _as_sent(association: Association, asked: Dataset) -> SentQuery:
    context = association.accepted_contexts[0]
    syntax = context.transfer_syntax[0]
    identifier = encode(asked, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated) or b""
    return SentQuery(str(context.abstract_syntax), str(syntax), identifier)

"""Asking an archive by C-FIND (PS3.4 Annex C): which studies and series it has, and of how many instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.multival import MultiValue
from pynetdicom import Association, build_context
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicomnode.arrivals import MOST_INSTANCES, credible_count
from dicomnode.dimse.associations import associate
from dicomnode.dimse.peers import Peer
from dicomnode.dimse.sending import Line
from dicomnode.errors import Refused, Unavailable
from dicomnode.pulling import MOST_STUDIES, FoundSeries, FoundStudy, Query
from pipeline.errors import UNREADABLE

STUDY_ROOT_FIND = str(StudyRootQueryRetrieveInformationModelFind)
"""The SOP class of the queries."""

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


def find(line: Line, query: Query, witness: Witness = lambda _: None) -> Iterator[FoundStudy]:
    """The studies that match, each with its series of the modality asked for; asked for one by one, as they are taken.

    Raises Unavailable where the peer does not answer or answers by a failure, Refused where it offers no C-FIND or more
    match than a person can mean.
    """
    contexts = [build_context(StudyRootQueryRetrieveInformationModelFind)]
    with associate(line.peer, line.calling_ae, contexts, line.timeout_s) as association:
        studies = []
        for number, match in enumerate(_find(association, _study_keys(query), witness)):
            if number >= MOST_STUDIES:
                raise Refused(f"more than {MOST_STUDIES} match: ask for less")
            studies.append(match)
        for match in studies:
            uid, listed = _text(match, "StudyInstanceUID"), _text(match, "ModalitiesInStudy").split("\\")
            if not uid or (query.modality and listed != [""] and query.modality not in listed):
                continue
            found = [_series(uid, one) for one in _find(association, _series_keys(uid, query), witness)]
            series = (one for one in found if one.series_instance_uid)
            yield FoundStudy(
                uid,
                _text(match, "PatientID"),
                _text(match, "AccessionNumber"),
                _text(match, "StudyDate"),
                _text(match, "StudyDescription"),
                tuple(one for one in series if not query.modality or one.modality == query.modality),
            )


def _study_keys(query: Query) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    texts = (query.patient_id, query.accession_number)
    if not all(key.isascii() for key in texts):
        asked.SpecificCharacterSet = "ISO_IR 192"
    asked.StudyDate, asked.AccessionNumber = query.study_date, query.accession_number
    asked.ModalitiesInStudy, asked.StudyDescription = query.modality, ""
    asked.PatientID, asked.StudyInstanceUID = query.patient_id, query.study_instance_uid
    return asked


def _series_keys(study_instance_uid: str, query: Query) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.Modality = "SERIES", query.modality
    asked.SeriesDescription = ""
    asked.StudyInstanceUID, asked.SeriesInstanceUID = study_instance_uid, ""
    asked.SeriesNumber = asked.NumberOfSeriesRelatedInstances = None
    return asked


def _series(study_instance_uid: str, match: Dataset) -> FoundSeries:
    return FoundSeries(
        study_instance_uid,
        _text(match, "SeriesInstanceUID"),
        _text(match, "Modality"),
        _text(match, "SeriesDescription"),
        _text(match, "SeriesNumber"),
        _told(match),
    )


def _text(match: Dataset, keyword: str) -> str:
    """The value as text, several joined by backslashes; missing or damaged is empty."""
    try:
        value = match.get(keyword)
    except UNREADABLE:
        return ""
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join("" if part is None else str(part) for part in parts).strip()


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

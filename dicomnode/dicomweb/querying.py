"""QIDO-RS (PS3.18 10.6): studies that match, and their series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from dicomnode.dicomweb.lines import Line, raise_for
from dicomnode.errors import Refused, Unavailable
from dicomnode.pulling import MOST_STUDIES, FoundSeries, FoundStudy, Query

_PAGE = 200
_STUDY = {
    "study_instance_uid": "0020000D",
    "patient_id": "00100020",
    "accession_number": "00080050",
    "date": "00080020",
    "description": "00081030",
}
_SERIES = {
    "series_instance_uid": "0020000E",
    "modality": "00080060",
    "description": "0008103E",
    "number": "00200011",
}
_SERIES_INSTANCES, _MODALITIES = "00201209", "00080061"

Witness = Callable[[str], None]
"""Told of each query before it is sent: its path and parameters."""


def find(line: Line, query: Query, witness: Witness = lambda _: None) -> Iterator[FoundStudy]:
    """The studies that match, each with its series of the modality asked for; asked for one by one, as they are taken.

    Raises Unavailable, or Refused where the server offers no such query or more match than a person can mean.
    """
    with line.open() as client:
        for match in _search(client, "/studies", _parameters(query), witness):
            study = {name: _text(match, tag) for name, tag in _STUDY.items()}
            uid = study["study_instance_uid"]
            listed = _values(match, _MODALITIES)
            if not uid or (query.modality and listed and query.modality not in listed):
                continue
            asked = {"Modality": query.modality} if query.modality else {}
            found = [
                _series(uid, one)
                for one in _search(client, f"/studies/{uid}/series", {**asked, "includefield": "0008103E"}, witness)
            ]
            fitting = (one for one in found if not query.modality or one.modality == query.modality)
            yield FoundStudy(**study, series=tuple(fitting))


def _parameters(query: Query) -> dict[str, str]:
    asked = {
        "PatientID": query.patient_id,
        "AccessionNumber": query.accession_number,
        "StudyInstanceUID": query.study_instance_uid,
        "StudyDate": query.study_date,
        "ModalitiesInStudy": query.modality,
        "includefield": "00081030",
    }
    return {name: value for name, value in asked.items() if value}


def _search(
    client: httpx.Client, path: str, parameters: dict[str, str], witness: Witness
) -> Iterator[Mapping[str, Any]]:
    """Every match, page by page until one brings nothing new: a server may give fewer than asked, or know no pages."""
    seen = set[str]()
    while True:
        asked = {**parameters, "limit": str(_PAGE), "offset": str(len(seen))}
        # Wildcards as they are (RFC 3986 3.4): some servers take their escapes for the text itself.
        target = f"{path}?{urlencode(asked, quote_via=quote, safe='*?')}"
        witness(target)
        fresh = [one for one in _ask(client, target) if _key(one) not in seen]
        if not fresh:
            return
        seen.update(_key(one) for one in fresh)
        if len(seen) > MOST_STUDIES:
            raise Refused(f"more than {MOST_STUDIES} match: ask for less")
        yield from fresh


def _key(match: Mapping[str, Any]) -> str:
    return _text(match, _SERIES["series_instance_uid"]) or _text(match, _STUDY["study_instance_uid"])


def _ask(client: httpx.Client, target: str) -> list[Mapping[str, Any]]:
    answer = client.get(target, headers={"Accept": "application/dicom+json"})
    if answer.status_code == 204:
        return []
    if answer.status_code != 200:
        raise_for(answer.status_code, str(client.base_url))
    try:
        matches = answer.json()
    except ValueError:
        matches = None
    if not isinstance(matches, list):
        raise Unavailable(f"{client.base_url}: the answer to a query is no DICOM JSON")
    return [match for match in matches if isinstance(match, dict)]


def _series(study_instance_uid: str, match: Mapping[str, Any]) -> FoundSeries:
    texts = {name: _text(match, tag) for name, tag in _SERIES.items()}
    counted = _text(match, _SERIES_INSTANCES)
    instances = int(counted) if counted.isdecimal() else None
    return FoundSeries(study_instance_uid=study_instance_uid, instances=instances, **texts)


def _text(match: Mapping[str, Any], tag: str) -> str:
    return next((str(value) for value in _values(match, tag) if value is not None), "")


def _values(match: Mapping[str, Any], tag: str) -> list[Any]:
    element = match.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []

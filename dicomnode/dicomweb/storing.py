"""STOW-RS (PS3.18 10.5): each result goes to an archive in a request of its own, and is answered for itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from dicomnode.deliveries import DeliveryEvent, Outcome, judge

_JSON = "application/dicom+json"
_PASSING = frozenset((408, 425, 429))  # what speaks of the moment, not of the instance
_LASTING = frozenset((501, 505))
_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _WARNING, _FAILURE = "00081155", "00081196", "00081197"


def send(client: httpx.Client, url: str, files: Sequence[Path]) -> Iterator[tuple[Path, Outcome]]:
    """Store the files, and yield what became of each. A file that cannot be read is rejected at once.

    Raises what httpx does where the server is away or breaks off.
    """
    for file in files:
        try:
            header = dcmread(file, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
            uid = str(header.SOPInstanceUID)
            content = file.read_bytes()
        except (InvalidDicomError, AttributeError, EOFError, ValueError, OSError):
            yield file, Outcome(DeliveryEvent.REJECT, f"{file.name}: cannot be read as a DICOM file")
            continue
        boundary = uuid4().hex
        # Without the transfer syntax, which the file itself names: with it Orthanc leaves a part out, and answers 200.
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
        answer = client.post(
            "/studies",
            content=b"".join((head.encode(), content, f"\r\n--{boundary}--\r\n".encode())),
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Accept": _JSON,
            },
        )
        yield file, judge_answer(answer.status_code, _module(answer), uid, url)


def judge_answer(status: int, module: Mapping[str, Any], sop_instance_uid: str, url: str) -> Outcome:
    """Turn the answer to a request with one instance into what happens next.

    module: the Store Instances Response Module (PS3.18 Table I.2-1) in the DICOM JSON model, empty where there was
    none. What it says of the instance goes before the HTTP status (PS3.18 Table 10.5.3-1); its reasons are those of
    C-STORE. Without a word on the instance nothing is success: there are servers that answer 200 and store nothing.
    """
    http = f"HTTP {status}"
    if (reason := _reason(module, _FAILED, sop_instance_uid, _FAILURE)) is not None:
        verdict = judge(reason or 0x0110)
        return Outcome(verdict.event, f"{http}, {verdict.reason}")
    warning = _reason(module, _REFERENCED, sop_instance_uid, _WARNING)
    if warning is not None and 200 <= status < 300:
        return Outcome(DeliveryEvent.ACCEPT, f"{http}, {judge(warning).reason}")
    if 200 <= status < 300:
        return Outcome(DeliveryEvent.POSTPONE, f"{http}, without a word on this instance")
    if status in _PASSING or (status >= 500 and status not in _LASTING):
        return Outcome(DeliveryEvent.POSTPONE, f"{http} from {url}")
    return Outcome(DeliveryEvent.REJECT, f"{http} from {url}: {_MEANINGS.get(status, 'refused')}")


_MEANINGS = {
    301: "moved: correct the url",
    302: "redirected: correct the url",
    307: "redirected: correct the url",
    308: "moved: correct the url",
    400: "the request is not understood",
    401: "wrong or no credentials: see user and secret_file",
    403: "this node may not store there",
    404: "no STOW-RS there: see url",
    405: "no STOW-RS there: see url",
    409: "not stored, without a reason",
    413: "larger than it takes",
    415: "it takes no DICOM files",
}


def _module(answer: httpx.Response) -> Mapping[str, Any]:
    if "json" not in answer.headers.get("content-type", ""):
        return {}
    try:
        module = json.loads(answer.content)
    except ValueError:
        return {}
    if isinstance(module, list) and len(module) == 1:  # as some servers wrap it
        module = module[0]
    return module if isinstance(module, dict) else {}


def _reason(module: Mapping[str, Any], sequence: str, sop_instance_uid: str, tag: str) -> int | None:
    """The reason that a sequence gives for the instance, 0 where it gives none; None: the instance is not in it."""
    for item in _values(module, sequence):
        if isinstance(item, dict) and sop_instance_uid in _values(item, _INSTANCE):
            return next((value for value in _values(item, tag) if isinstance(value, int)), 0)
    return None


def _values(item: Mapping[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []

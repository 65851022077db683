"""STOW-RS as its origin server (PS3.18 10.5): files come in over HTTP as safely as over DIMSE.

A body of any length is taken apart as it comes. Of each request one instance at a time is in memory, and is on disk and
indexed before the next is read; the answer says of each what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from io import BytesIO
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from pydicom import dcmread
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from dicomnode.arrivals import MOST_INSTANCES
from dicomnode.audit.messages import Entity
from dicomnode.dicomweb import Malformed, Part, PartReader
from dicomnode.headers import text
from dicomnode.receiver import (
    CANNOT_UNDERSTAND,
    DATA_SET_MISMATCH,
    OUT_OF_RESOURCES,
    SUCCESS,
    Receiver,
    Taken,
    Witness,
    conflict_status,
    identify,
)
from dicomnode.web.accounts import Role
from dicomnode.web.sessions import Visitor
from dicomnode.web.signin import Needs
from dicomnode.web.site import Here, Site
from pipeline.errors import UNREADABLE
from pipeline.limits import check_file, header_part

_ENDLESS = 1 << 62  # of a body: its parts are bounded, one by one
_JSON, _DICOM = "application/dicom+json", "application/dicom"
_WARNING = 0xB

router = APIRouter(prefix="/dicom-web", include_in_schema=False)
Sender = Annotated[Visitor, Depends(Needs(Role.SENDER))]
"""Who asks, allowed to store."""


class Desk:
    """What all requests that store share: who stores, and what they hold in memory, in the limits of the listener.

    storing: bytes that are being stored; the readers hold more.
    """

    def __init__(self, site: Site) -> None:
        self.limits = site.settings.listener
        status = conflict_status(self.limits)
        self.receiver = Receiver(site.database, site.archive, site.clock, conflict_status=status)
        self.readers: list[PartReader] = []
        self.storing = 0

    @contextmanager
    def reading(self, content_type: str) -> Iterator[PartReader]:
        """A place among the requests that are at work. Raises HTTPException where there is none."""
        if len(self.readers) >= self.limits.max_associations:
            raise HTTPException(503, "too many requests at once", {"Retry-After": "10"})
        try:
            reader = PartReader(content_type, self.limits.max_dataset_mb * 1e6)
        except Malformed as error:
            raise HTTPException(415, str(error)) from None
        self.readers.append(reader)
        try:
            yield reader
        finally:
            self.readers.remove(reader)

    def check_room(self) -> None:
        """Raises HTTPException where all requests together hold too much."""
        if self.storing + sum(reader.held for reader in self.readers) > self.limits.max_receiving_mb * 1e6:
            raise HTTPException(503, "too much is being received", {"Retry-After": "10"})


@router.post("/studies", max_body_size=_ENDLESS)
async def store(request: Request, here: Here, sender: Sender) -> JSONResponse:
    """Store instances of any study."""
    return await _store(request, here, sender, "")


@router.post("/studies/{study}", max_body_size=_ENDLESS)
async def store_in_study(request: Request, here: Here, sender: Sender, study: str) -> JSONResponse:
    """Store instances of one study; those of others are refused."""
    return await _store(request, here, sender, study)


async def _store(request: Request, here: Site, sender: Visitor, study: str) -> JSONResponse:
    desk: Desk = request.app.state.desk
    taken: list[Taken] = []
    name = sender.name or "STOW-RS"
    with here.auditor.receiving(Entity.peer(name, sender.address)) as witness:
        try:
            async with aclosing(_parts(request, desk)) as parts:
                async for part in parts:
                    taken.append(await run_in_threadpool(_take, desk.receiver, part, name, witness, study))
                    if len(taken) > MOST_INSTANCES:
                        raise HTTPException(413, "too many instances at once")
        except Malformed as error:
            if not taken:
                raise HTTPException(400, str(error)) from None
            taken.append(Taken("", "", CANNOT_UNDERSTAND, str(error)))
        except ClientDisconnect:
            raise HTTPException(400, "the body was cut off") from None
    if not taken:
        raise HTTPException(400, "there is no instance in the body")
    return JSONResponse(_module(taken), _status(taken), media_type=_JSON)


async def _parts(request: Request, desk: Desk) -> AsyncGenerator[Part, None]:
    """The parts of the body, as they come. Raises Malformed or HTTPException."""
    with desk.reading(request.headers.get("content-type", "")) as reader:
        async for piece in _in_time(request.stream(), desk.limits.idle_seconds):
            for part in reader.feed(piece):
                size = len(part.content or b"")
                desk.storing += size
                try:
                    yield part
                finally:
                    desk.storing -= size
            desk.check_room()
        reader.close()


async def _in_time(pieces: AsyncGenerator[bytes, None], seconds: float) -> AsyncGenerator[bytes, None]:
    """The pieces, as long as none lets wait for it too long. Raises HTTPException."""
    while True:
        try:
            yield await asyncio.wait_for(anext(pieces), seconds)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, "nothing came for too long") from None


def _take(receiver: Receiver, part: Part, sender: str, witness: Witness, study: str) -> Taken:
    if part.content is None:
        return Taken("", "", OUT_OF_RESOURCES, "larger than listener.max_dataset_mb")
    if part.media_type != _DICOM:
        return Taken("", "", CANNOT_UNDERSTAND, "not application/dicom")
    try:
        if study and _study_of(part.content) != study:
            return Taken(*identify(part.content)[0], DATA_SET_MISMATCH, "of another study")
    except UNREADABLE:
        return Taken("", "", CANNOT_UNDERSTAND, "not a DICOM file")
    return receiver.take_file(part.content, sender, witness)


def _study_of(blob: bytes) -> str:
    """Raises one of UNREADABLE."""
    check_file(blob)
    header = dcmread(BytesIO(header_part(blob)), specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
    return text(header, "StudyInstanceUID")


def _status(taken: list[Taken]) -> int:
    """The HTTP status for all together (PS3.18 Table 10.5.3-1)."""
    failed = [one for one in taken if not _is_stored(one)]
    if len(failed) == len(taken):
        return 503 if all(one.status == OUT_OF_RESOURCES for one in taken) else 409
    return 200 if all(one.status == SUCCESS for one in taken) else 202


def _is_stored(one: Taken) -> bool:
    return one.status == SUCCESS or one.status >> 12 == _WARNING


def _module(taken: list[Taken]) -> dict[str, Any]:
    """The Store Instances Response Module (PS3.18 Table I.2-1), DICOM JSON Model (PS3.18 F)."""
    kept = [_item(one, "00081196" if one.status else "") for one in taken if _is_stored(one)]
    failed = [_item(one, "00081197") for one in taken if not _is_stored(one)]
    module: dict[str, Any] = {"00081190": {"vr": "UR"}}
    if kept:
        module["00081199"] = {"vr": "SQ", "Value": kept}
    if failed:
        module["00081198"] = {"vr": "SQ", "Value": failed}
    return module


def _item(one: Taken, reason: str) -> dict[str, Any]:
    """A reference to an instance, with the tag of the reason where there is one."""
    pairs = (("00081150", one.sop_class_uid), ("00081155", one.sop_instance_uid))
    item: dict[str, Any] = {tag: {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"} for tag, uid in pairs}
    return {**item, reason: {"vr": "US", "Value": [one.status]}} if reason else item

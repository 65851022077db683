"""What is found and fetched stands on the audit trail, and in no log."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelGet

from dicomnode.audit.messages import Entity
from dicomnode.auditor import Auditor
from dicomnode.dicomweb import Line
from dicomnode.doctor import Level, Visit
from dicomnode.doctor.traffic import check_destinations
from dicomnode.endpoints import SourceSettings
from dicomnode.errors import Misconfigured
from dicomnode.node import Actor, Node
from dicomnode.pulling import FoundSeries, Query
from dicomnode.settings import Settings, load
from dicomnode.sources import GettingSource, Intake, WebSource, open_source
from tests.audit_messages import kind, read_messages
from tests.house import House
from tests.served import take_port

PARTS = b'multipart/related; type="application/dicom"; boundary=b'


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def auditor(house: House, tmp_path: Path) -> Auditor:
    return Auditor(Settings(archive={"path": tmp_path / "archive"}), house.database, lambda: house.now)


def says(auditor: Auditor) -> list[str]:
    return [kind(message) for message in read_messages(auditor.trail.folder)]


def test_case_34_a_patient_is_named_on_the_trail_and_in_no_log(
    house: House, auditor: Auditor, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "/series/" in request.url.path:
            parts = b"".join(b"--b\r\n\r\n" + file.read_bytes() + b"\r\n" for file in house.slices)
            return httpx.Response(200, content=parts + b"--b--", headers=[(b"content-type", PARTS)])
        tag = "0020000E" if request.url.path.endswith("/series") else "0020000D"
        found: dict[str, Any] = {tag: {"vr": "UI", "Value": ["1.2"]}}
        return httpx.Response(200, text=json.dumps([found]))

    caplog.set_level(logging.INFO)
    line = Line("http://vna/dicom-web", 3.0, transport=httpx.MockTransport(answer))
    source = WebSource("vna", line, Entity.peer("", "vna"), Intake(house.receiver, auditor, 1e9))
    (study,) = source.find(Query(patient_id="PHANTOM-1"))
    assert source.fetch(study.series[0]) == "3 instances came"
    messages = read_messages(auditor.trail.folder)
    kinds = [kind(message) for message in messages]
    assert set(kinds[:-2]) == {"Query"}
    assert kinds[-2:] == ["Begin Transferring DICOM Instances", "DICOM Instances Transferred"]
    asked = messages[0].findtext(".//ParticipantObjectQuery")
    assert b"PatientID=PHANTOM-1" in base64.b64decode(asked)
    sender = messages[-1].find("ActiveParticipant")
    assert (sender.get("UserID"), sender.get("UserIsRequestor")) == ("vna", "true")
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert not [text for text in ours if "PHANTOM" in text]


def test_what_came_by_get_is_on_the_trail_even_where_it_broke_off(house: House, auditor: Auditor) -> None:
    def send(event: evt.Event) -> Iterator[Any]:
        yield 3
        yield 0xFF00, pydicom.dcmread(house.slices[0])
        event.assoc.abort()
        yield 0xFF00, pydicom.dcmread(house.slices[1])

    archive = AE("ARCHIVE")
    archive.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    archive.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_GET, send)])
    described = SourceSettings(
        name="pacs", ae_title="ARCHIVE", host="127.0.0.1", port=server.server_address[1], retrieve="get"
    )
    source = open_source(described, Settings(), house.receiver, auditor, house.now)
    assert isinstance(source, GettingSource)
    with pytest.raises(Exception, match="C-GET"):
        source.fetch(FoundSeries("1.2", house.uid, "CT", "", "", 3))
    server.shutdown()
    assert house.files("received") == 1
    assert says(auditor) == ["Begin Transferring DICOM Instances", "DICOM Instances Transferred"]


def test_a_node_without_rules_has_no_puller(tmp_path: Path) -> None:
    source = {"name": "pacs", "ae_title": "A", "host": "h", "port": 104}
    rule = {"name": "all", "source": "pacs"}
    archive = {"path": tmp_path / "archive"}
    names = []
    for rules in ((), (rule,)):
        node = Node(Settings(archive=archive, sources=(source,), pull=rules), None)
        names.append([name for name, _ in node._plan(frozenset({Actor.PULLER})) if "puller" in name])
        node._database.close()
    assert names == [[], ["puller-pacs"]]


def test_a_rule_names_a_source_that_there_is(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[[pull]]\nname = "all"\nsource = "pacs"\n', encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"rule 'all'.*no source 'pacs'"):
        load(file, {})


def test_the_doctor_asks_every_source(house: House) -> None:
    web = {"name": "vna", "url": f"http://127.0.0.1:{take_port()}/dicom-web"}
    pacs = {"name": "pacs", "ae_title": "A", "host": "127.0.0.1", "port": take_port()}
    findings = list(check_destinations(Visit(Settings(sources=(web, pacs)), house.now)))
    failures = {finding.check: finding.text for finding in findings if finding.level is Level.FAILURE}
    assert failures.keys() == {"source vna", "source pacs"}
    assert "no connection" in failures["source vna"]

"""A real Orthanc is pulled from in each of the three ways, takes results by STOW-RS and sends images by it."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from dicomnode import dimse
from dicomnode.archive import RECEIVED, Archive, data_set_digest
from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.auditor import Auditor
from dicomnode.cli import app
from dicomnode.courier import Courier, Route
from dicomnode.database import Database, open_database
from dicomnode.deliveries import DeliveryEvent
from dicomnode.dicomweb import Line
from dicomnode.dimse import Peer
from dicomnode.historian import Historian, open_archive
from dicomnode.node import utc_now
from dicomnode.receiver import Receiver
from dicomnode.sections import ListenerSettings, PriorsSettings
from dicomnode.settings import load
from dicomnode.store import history, pulls, receiving
from dicomnode.web.server import serve
from pipeline.seg import to_seg
from pipeline.sr import to_sr
from tests.clinic import Clinic
from tests.external import find_program
from tests.fakes import CARD
from tests.orthanc import Orthanc
from tests.outboxes import SEG, SR, Outbox
from tests.phantom import PhantomOptions, write_series
from tests.results import AT, describe, mark, scan_phantom
from tests.served import take_port, wait_for

DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


@pytest.fixture(scope="module")
def port() -> int:
    """Of the node: Orthanc has to know it."""
    return take_port()


@pytest.fixture(scope="module")
def web_port() -> int:
    """Of the node's web interface."""
    return take_port()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, port: int, web_port: int) -> Iterator[Orthanc]:
    find_program("Orthanc", "orthanc")
    if not Path(DICOMWEB).is_file():
        pytest.skip("orthanc-dicomweb is not installed")
    folder = tmp_path_factory.mktemp("orthanc")
    changes: dict[str, Any] = {"Plugins": [DICOMWEB], "DicomAlwaysAllowFind": True, "DicomAlwaysAllowMove": True}
    modalities = {"node": ["PANCREAS", "127.0.0.1", port], "elsewhere": ["ELSEWHERE", "127.0.0.1", take_port()]}
    servers = {"Servers": {"node": {"Url": f"http://127.0.0.1:{web_port}/dicom-web/"}}}
    changes |= {"DicomModalities": modalities, "DicomAlwaysAllowGet": True, "DicomWeb": servers}
    server = Orthanc(folder / "orthanc", **changes)
    (folder / "slices").mkdir()
    slices = write_series(folder / "slices", PhantomOptions((5, 8, 8)))
    outcomes = dimse.send(Peer("ORTHANC", "127.0.0.1", server.dicom_port), "CT", slices, 10.0)
    assert {outcome.event for _, outcome in outcomes} == {DeliveryEvent.ACCEPT}
    yield server
    server.stop()


@pytest.fixture
def config(tmp_path: Path, orthanc: Orthanc, port: int) -> Path:
    dimse_source = f'ae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {orthanc.dicom_port}\ntimeout_seconds = 10\n'
    file = tmp_path / "node.toml"
    file.write_text(
        f'[listener]\nport = {port}\n[archive]\npath = "{tmp_path}/archive"\nreserve_gb = 0\n'
        f'[[sources]]\nname = "move"\n{dimse_source}'
        f'[[sources]]\nname = "get"\nretrieve = "get"\n{dimse_source}'
        f'[[sources]]\nname = "web"\nurl = "{orthanc.url}/dicom-web"\n',
        encoding="utf-8",
    )
    return file


@pytest.fixture
def database(tmp_path: Path, config: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/node.db")
    yield opened
    opened.close()


@pytest.fixture
def listener(tmp_path: Path, database: Database, port: int) -> Iterator[None]:
    receiver, stop = Receiver(database, Archive(tmp_path / "archive", 0), utc_now), Event()
    services = [receiver.service(("1.2.840.10008.1.2.1",))]
    thread = Thread(target=receiver.run, args=(ListenerSettings(port=port), services, stop))
    thread.start()
    yield
    stop.set()
    thread.join()


def pull(config: Path, source: str, *options: str) -> tuple[int, list[dict[str, object]], str]:
    done = CliRunner().invoke(app, ["pull", source, "--config", str(config), "--json", *options])
    return done.exit_code, json.loads(done.stdout) if done.stdout else [], str(done.exception or "")


@pytest.mark.parametrize("source", ["move", "get", "web"])
def test_orthanc_is_pulled_from(
    source: str, config: Path, orthanc: Orthanc, request: pytest.FixtureRequest, tmp_path: Path, database: Database
) -> None:
    wanted = ("--patient", "PHANTOM*", "--series-description", "")
    code, (found,), _ = pull(config, source, *wanted, "--dry-run")
    assert (code, found["modality"], found["instances"], found["here"]) == (0, "CT", 5, 0)
    if source == "move":
        request.getfixturevalue("listener")
        wait_for("the node listens", lambda: listens(port_of(config)))
    code, (fetched,), _ = pull(config, source, *wanted)
    assert (code, fetched["here"]) == (0, 5), fetched["outcome"]
    files = (tmp_path / "archive" / RECEIVED).rglob("*.dcm")
    kept = {data_set_digest(file.read_bytes()) for file in files}
    assert kept == {data_set_digest(fetch_file(orthanc, key)) for key in orthanc.series()["CT"]["Instances"]}
    with database.read() as connection:
        assert pulls.count_here(connection, str(found["series_instance_uid"])) == len(kept) == 5
    code, (again,), _ = pull(config, source, *wanted)
    assert (code, again["outcome"]) == (0, "")  # here already


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def fetch_file(orthanc: Orthanc, key: str) -> bytes:
    with urllib.request.urlopen(f"{orthanc.url}/instances/{key}/file", timeout=10) as answer:
        return bytes(answer.read())


def port_of(config: Path) -> int:
    return int(config.read_text(encoding="utf-8").split("port = ")[1].split("\n")[0])


@pytest.mark.parametrize("source", ["get", "web"])
def test_what_orthanc_does_not_have_is_not_found(source: str, config: Path) -> None:
    assert pull(config, source, "--patient", "NOBODY", "--since", "1990-01-01")[:2] == (0, [])
    assert pull(config, source, "--patient", "PHANTOM-1", "--modality", "MR")[:2] == (0, [])


def test_a_move_to_where_nobody_listens_says_so(config: Path) -> None:
    code, (line,), _ = pull(config, "move", "--patient", "PHANTOM-1")
    assert code == 1
    assert line["failed"]


def test_a_move_destination_that_orthanc_does_not_know(config: Path) -> None:
    config.write_text('[listener]\nae_title = "STRANGER"\n' + config.read_text(encoding="utf-8").split("\n", 2)[2])
    code, (line,), _ = pull(config, "move", "--patient", "PHANTOM-1")
    assert code == 1
    assert "STRANGER" in str(line["outcome"])


def test_orthanc_takes_results_by_stow(tmp_path: Path, orthanc: Orthanc) -> None:
    bench = Outbox(tmp_path, port=1)
    route = Route("archive", Line(f"{orthanc.url}/dicom-web", 10.0), bench.patience)
    Courier(bench.database, bench.archive, route, lambda: bench.now).step()
    assert (bench.states(), bench.reasons()) == (["sent", "sent"], ["HTTP 200, 0x0000 success"] * 2)
    there = {one["MainDicomTags"]["SOPInstanceUID"] for one in orthanc.ask("/instances?expand")}
    assert {SEG, SR} <= there
    bench.database.close()


@pytest.mark.parametrize("source", ["get", "web"])
def test_what_was_reported_before_comes_back_into_the_history(
    orthanc: Orthanc, database: Database, config: Path, tmp_path: Path, source: str
) -> None:
    (tmp_path / "scan").mkdir()
    scan = scan_phantom(tmp_path / "scan", attributes={"PatientID": "BEFORE-1"})
    segmentation = mark(scan)
    seg = to_seg(scan, segmentation, CARD, AT)
    sr = to_sr(scan, describe(segmentation), CARD, AT, seg=seg)
    sr.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    orthanc.ask("/instances", (tmp_path / "sr.dcm").read_bytes())
    head = ("9.9", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "9.1", "9.0", Patient("BEFORE-1", ""), "CT")
    tail = ("AXIAL", "1\\0\\0\\0\\1\\0", "20260301", "received/9.dcm", 10, "b" * 64, "SENDER", utc_now())
    with database.begin() as connection:
        receiving.remember(connection, StoredInstance(*head, *tail))
    settings = load(config, {})[0].model_copy(update={"priors": PriorsSettings(source=source)})
    shelf, name = open_archive(settings, Auditor(settings, database, utc_now), utc_now())
    assert Historian(database, shelf, name, utc_now).step()
    with database.read() as connection:
        (point,) = history.points(connection, Patient("BEFORE-1", ""))
    assert (point.source, point.series_instance_uid) == (source, scan.series_instance_uid)
    assert f"{point.volume_ml:.1f} mL" in sr.SeriesDescription


def test_orthanc_sends_by_stow(tmp_path: Path, orthanc: Orthanc, web_port: int) -> None:
    clinic, stop = Clinic(tmp_path, web={"port": web_port}), Event()
    serving = Thread(target=serve, args=(clinic.app(), clinic.settings.web, None, stop))
    serving.start()
    try:
        wait_for("the web interface", lambda: listens(web_port))
        order = {"Resources": [orthanc.series()["CT"]["ID"]], "Synchronous": True}
        sent = orthanc.ask("/dicom-web/servers/node/stow", json.dumps(order).encode())
    finally:
        stop.set()
        serving.join()
    assert sent["InstancesCount"] == "5"
    kept = {data_set_digest(file.read_bytes()) for file in (tmp_path / "archive" / RECEIVED).rglob("*.dcm")}
    assert kept == {data_set_digest(fetch_file(orthanc, key)) for key in orthanc.series()["CT"]["Instances"]}
    clinic.database.close()

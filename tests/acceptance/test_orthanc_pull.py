"""Pulling from a real Orthanc by each of the three ways, and results to it by STOW-RS."""

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
from dicomnode.cli import app
from dicomnode.courier import Courier, Route
from dicomnode.database import Database, open_database
from dicomnode.deliveries import DeliveryEvent
from dicomnode.dicomweb import Line
from dicomnode.dimse import Peer
from dicomnode.node import utc_now
from dicomnode.receiver import Receiver
from dicomnode.sections import ListenerSettings
from dicomnode.store import pulls
from tests.external import find_program
from tests.orthanc import Orthanc
from tests.outboxes import SEG, SR, Outbox
from tests.phantom import PhantomOptions, write_series
from tests.served import take_port, wait_for

DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


@pytest.fixture(scope="module")
def port() -> int:
    """Of the node: Orthanc has to know it."""
    return take_port()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Orthanc]:
    find_program("Orthanc", "orthanc")
    if not Path(DICOMWEB).is_file():
        pytest.skip("orthanc-dicomweb is not installed")
    folder = tmp_path_factory.mktemp("orthanc")
    changes = {"Plugins": [DICOMWEB], "DicomAlwaysAllowFind": True, "DicomAlwaysAllowMove": True}
    modalities = {"node": ["PANCREAS", "127.0.0.1", port], "elsewhere": ["ELSEWHERE", "127.0.0.1", take_port()]}
    server = Orthanc(folder / "orthanc", DicomModalities=modalities, DicomAlwaysAllowGet=True, **changes)
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
    there = [one["ID"] for one in orthanc.ask("/instances?expand") if is_ct(one)]
    assert kept == {data_set_digest(fetch_file(orthanc, key)) for key in there}
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


def is_ct(instance: dict[str, Any]) -> bool:
    return str(instance["MainDicomTags"]["SOPInstanceUID"]) not in (SEG, SR)


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

"""The way of a hospital: dcmtk sends a series to the node, and its results arrive in a real Orthanc."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.external import find_program
from tests.phantom import PhantomOptions, write_series
from tests.served import ServedNode, take_port, wait_for


class Orthanc:
    """Orthanc in a folder, without authentication, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.dicom_port, self._http_port = take_port(), take_port()
        folder.mkdir()
        config = folder / "orthanc.json"
        settings = {
            "Name": "acceptance",
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "HttpPort": self._http_port,
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "Plugins": [],
        }
        config.write_text(json.dumps(settings), encoding="utf-8")
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([find_program("Orthanc", "orthanc"), config], stdout=log, stderr=log)
        wait_for("Orthanc answers", self._answers, 30)

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_port}{path}", timeout=10) as answer:
            return json.load(answer)

    def series(self) -> dict[str, dict[str, Any]]:
        """The series by modality."""
        return {one["MainDicomTags"]["Modality"]: one for one in self.ask("/series?expand")}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "Orthanc ended"
        try:
            return bool(self.ask("/system"))
        except OSError:
            return False


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    find_program("Orthanc", "orthanc")
    server = Orthanc(tmp_path / "orthanc")
    yield server
    server.stop()


@pytest.fixture
def node(tmp_path: Path, orthanc: Orthanc) -> Iterator[ServedNode]:
    served = ServedNode(tmp_path, ("ORTHANC", orthanc.dicom_port))
    served.start()
    yield served
    assert served.stop() == 0, served.log()


@pytest.mark.slow
def test_a_series_sent_by_dcmtk_comes_back_to_orthanc(tmp_path: Path, orthanc: Orthanc, node: ServedNode) -> None:
    storescu = find_program("storescu", "dcmtk")
    (tmp_path / "phantom").mkdir()
    paths = write_series(tmp_path / "phantom", PhantomOptions(shape=(24, 40, 50), spacing_mm=(4.0, 4.0, 4.0)))
    environment = {**os.environ, "TCP_NODELAY": "1"}
    command = [storescu, "-R", "+sd", "-aec", "PANCREAS", "127.0.0.1", str(node.port), str(tmp_path / "phantom")]
    sent = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    wait_for("SEG and SR in Orthanc", lambda: len(orthanc.series()) == 2, 60)
    series = orthanc.series()
    assert series.keys() == {"SEG", "SR"}
    assert all(len(one["Instances"]) == 1 for one in series.values())
    (study,) = orthanc.ask("/studies?expand")
    assert study["PatientMainDicomTags"]["PatientID"] == "PHANTOM-1"
    tags = orthanc.ask(f"/instances/{series['SEG']['Instances'][0]}/simplified-tags")
    assert len(tags["ReferencedSeriesSequence"][0]["ReferencedInstanceSequence"]) == len(paths)
    (job,) = node.jobs()
    assert (job["state"], job["deliveries"]) == ("done", {"sent": 2})
    assert "PHANTOM-1" not in node.log()  # case 34
    assert "Asymmetric" not in node.log()

"""The way of a hospital: dcmtk sends a series to the node, and its results arrive in a real Orthanc."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.external import find_program
from tests.orthanc import Orthanc
from tests.phantom import PhantomOptions, write_series
from tests.served import ServedNode, wait_for


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

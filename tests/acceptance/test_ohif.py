"""Seen by a radiologist: CT goes to the archive alone, and its pancreas is in the viewer without anybody's doing.

Orthanc and the viewer's server run with the files of deploy/; the CT is a phantom of known volume and position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicomnode import dimse
from tests.acceptance.ohif.radiologist import radiologist
from tests.acceptance.ohif.viewer import ViewerServer
from tests.fakes import write_flat_bundle
from tests.orthanc import Orthanc, deployed_settings
from tests.phantom import ORGANS, PANCREAS, PhantomOptions, write_series
from tests.served import ROOT, ServedNode, take_port, wait_for

PLACES = ("StorageDirectory", "IndexDirectory", "HttpPort", "RemoteAccessAllowed")
VOLUME = "118565006"  # SCT
PHANTOM = PhantomOptions((40, 96, 120), (2.5, 1.75, 1.75), attributes={"ImagesInAcquisition": 40})
VOXEL_ML = math.prod(PHANTOM.spacing_mm) / 1000
HEAD = (slice(22, 28), slice(45, 60), slice(78, 92))  # slices, rows, columns

Sums = dict[str, tuple[int, int, int]]
"""By SOP Instance UID of the CT: voxels of the segmentation, their columns added up, their rows added up."""


@pytest.fixture
def archive_port() -> int:
    return take_port()


@pytest.fixture
def node(tmp_path: Path, archive_port: int) -> Iterator[ServedNode]:
    served = ServedNode(tmp_path, ("ORTHANC", archive_port))
    bundle = write_flat_bundle(tmp_path / "threshold")
    settings = served.config.read_text(encoding="utf-8").replace(f"{tmp_path}/bundle", str(bundle))
    served.config.write_text(settings + "storage_commitment = true\n", encoding="utf-8")
    served.start()
    yield served
    assert served.stop() == 0, served.log()


@pytest.fixture
def orthanc(tmp_path: Path, node: ServedNode, archive_port: int) -> Iterator[Orthanc]:
    """As deployed, on this machine, and with the patience of a test."""
    settings = {name: value for name, value in deployed_settings().items() if name not in PLACES}
    settings["DicomModalities"]["pancreas"] |= {"Host": "127.0.0.1", "Port": node.port}
    settings |= {
        "DicomPort": archive_port,
        "StableAge": 2,
        "LuaScripts": [str(ROOT / "deploy" / "orthanc" / "route.lua")],
    }
    server = Orthanc(tmp_path / "orthanc", **settings)
    yield server
    server.stop()


@pytest.fixture
def viewer(tmp_path: Path, orthanc: Orthanc) -> Iterator[ViewerServer]:
    server = ViewerServer(tmp_path / "viewer", orthanc.url)
    yield server
    server.stop()


def write_study(folder: Path) -> list[Path]:
    """The phantom, whose pancreas gets a head at one end: then no flip leaves it as it is."""
    folder.mkdir()
    paths = write_series(folder, PHANTOM)
    for path in paths[HEAD[0]]:
        ct = dcmread(path)
        pixels = ct.pixel_array
        pixels[HEAD[1:]] = PANCREAS.hounsfield - ct.RescaleIntercept
        ct.PixelData = pixels.tobytes()
        ct.save_as(path)
    return paths


def send_study(paths: list[Path], orthanc: Orthanc) -> None:
    """C-STORE to the archive, as a scanner does."""
    peer = dimse.Peer("ORTHANC", "127.0.0.1", orthanc.dicom_port)
    outcomes = [outcome.event for _, outcome in dimse.send(peer, "CT", paths, 10.0)]
    assert outcomes == ["accept"] * len(paths)


def sums_of(seg: Dataset) -> Sums:
    """What the file says, by the instances that its frames name."""
    sums = {}
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        rows, columns = np.nonzero(frame)
        sums[str(source)] = (len(rows), int(columns.sum()), int(rows.sum()))
    return sums


def bright(ct: Dataset) -> tuple[int, int, int]:
    """The same of what is bright on a slice, which is the pancreas that the node's model finds."""
    rows, columns = np.nonzero(ct.pixel_array + ct.RescaleIntercept > (ORGANS[0].hounsfield + PANCREAS.hounsfield) / 2)
    return len(rows), int(columns.sum()), int(rows.sum())


def assert_true(held: Sums, study: list[Dataset]) -> None:
    """The overlay lies on what is bright, slice for slice: no flip, no turn, no shift."""
    true = np.array([bright(ct) for ct in study])
    wrong = np.abs(true - [held.get(ct.SOPInstanceUID, (0, 0, 0)) for ct in study])
    assert (wrong.sum(axis=0) < 0.1 * true.sum(axis=0)).all()


def stated_volume(item: Dataset) -> str:
    """The number of the volume in a tree of content items."""
    for child in item.get("ContentSequence", []):
        if child.ValueType == "NUM" and child.ConceptNameCodeSequence[0].CodeValue == VOLUME:
            return str(child.MeasuredValueSequence[0].NumericValue)
        if found := stated_volume(child):
            return found
    return ""


@pytest.mark.slow
def test_a_study_sent_to_the_archive_is_seen_with_its_pancreas(
    tmp_path: Path, node: ServedNode, orthanc: Orthanc, viewer: ViewerServer
) -> None:
    paths = write_study(tmp_path / "phantom")
    study = [dcmread(path) for path in paths]
    send_study(paths, orthanc)
    wait_for("SEG and SR in the archive", lambda: orthanc.series().keys() == {"CT", "SEG", "SR"}, 60)
    wait_for("the archive's commitment", lambda: node.jobs()[0]["deliveries"] == {"confirmed": 2}, 30)
    seg, sr = (orthanc.fetch(orthanc.series()[modality]) for modality in ("SEG", "SR"))
    assert seg.FrameOfReferenceUID == study[0].FrameOfReferenceUID  # a wrong one the viewer would not notice
    assert [viewer.status(method, "/dicom-web/studies") for method in ("GET", "POST", "DELETE")] == [200, 403, 403]
    with radiologist(tmp_path) as reader:
        reader.open_study(viewer.url, seg.StudyInstanceUID)
        overlay = reader.open_overlay()
        assert overlay.labels == ["Pancreas"]
        assert overlay.sums == sums_of(seg)
        assert_true(overlay.sums, study)
        assert reader.is_painted(overlay)
        assert any("Pancreas" in row for row in reader.listed_segments())
        volume = stated_volume(sr)
        assert float(volume) == pytest.approx(sum(bright(ct)[0] for ct in study) * VOXEL_ML, rel=0.05)
        assert re.search(rf"{re.escape(volume)}\s*mL", reader.read_report(volume))
    assert reader.problems == []
    assert reader.hosts == {viewer.url.removeprefix("http://")}

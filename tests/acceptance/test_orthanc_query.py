"""A real Orthanc is asked how many instances a series has."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from dicomnode.dimse import Peer, count_instances, send
from dicomnode.errors import Unavailable
from tests.external import find_program
from tests.orthanc import Orthanc
from tests.phantom import PhantomOptions, write_series


@pytest.mark.slow
def test_case_11_orthanc_says_how_many_instances_it_has(tmp_path: Path) -> None:
    find_program("Orthanc", "orthanc")
    (tmp_path / "phantom").mkdir()
    paths = write_series(tmp_path / "phantom", PhantomOptions((7, 8, 8)))
    header = pydicom.dcmread(paths[0], stop_before_pixels=True)
    known = (str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
    orthanc = Orthanc(tmp_path / "orthanc", DicomAlwaysAllowFind=True)
    try:
        peer = Peer("ORTHANC", "127.0.0.1", orthanc.dicom_port)
        assert count_instances(peer, "NODE", [known], 10.0) == {known[1]: None}
        list(send(peer, "NODE", paths, 10.0))
        asked = [known, (known[0], "1.2.3.4")]
        assert count_instances(peer, "NODE", asked, 10.0) == {known[1]: 7, "1.2.3.4": None}
    finally:
        orthanc.stop()
    with pytest.raises(Unavailable):
        count_instances(peer, "NODE", [known], 2.0)

"""A real Orthanc."""

from __future__ import annotations

import io
import json
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread

from tests.external import find_program
from tests.served import ROOT, take_port, wait_for


def deployed_settings() -> dict[str, Any]:
    """What deploy/orthanc/orthanc.json says, whose comments Python does not read."""
    text = (ROOT / "deploy" / "orthanc" / "orthanc.json").read_text(encoding="utf-8")
    return dict(json.loads(re.sub(r"(?m)(^|\s)//.*$", "", text)))


class Orthanc:
    """Orthanc in a folder, without authentication, on free ports."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """changes: of its settings."""
        self.dicom_port, self._http_port = changes.get("DicomPort") or take_port(), take_port()
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
            **changes,
        }
        config.write_text(json.dumps(settings), encoding="utf-8")
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([find_program("Orthanc", "orthanc"), config], stdout=log, stderr=log)
        wait_for("Orthanc answers", self._answers, 30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http_port}"

    def ask(self, path: str, body: bytes | None = None) -> Any:
        """GET, or POST where there is a body. Raises OSError where Orthanc answers by an error."""
        with urllib.request.urlopen(f"{self.url}{path}", body, timeout=30) as answer:
            return json.load(answer)

    def fetch(self, series: dict[str, Any]) -> Dataset:
        """The first instance of a series, as it was stored."""
        with urllib.request.urlopen(f"{self.url}/instances/{series['Instances'][0]}/file", timeout=30) as answer:
            return dcmread(io.BytesIO(answer.read()))

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

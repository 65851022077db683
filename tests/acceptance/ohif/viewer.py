"""The viewer of deploy/: the built OHIF behind nginx, over an Orthanc's DICOMweb."""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.external import find_program
from tests.served import ROOT, take_port, wait_for

DEPLOYED = ROOT / "deploy" / "viewer"
BUILT = ROOT / ".ohif"
"""Where `make setup` puts OHIF."""


class ViewerServer:
    """nginx as the image runs it, but for its places on this machine."""

    def __init__(self, folder: Path, archive_url: str) -> None:
        if not (BUILT / "index.html").exists():
            missing = f"OHIF is not in {BUILT.name}/: `make setup` fetches it"
            pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
        port = take_port()
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir()
        config = folder / "nginx.conf"
        text = (DEPLOYED / "nginx.conf").read_text(encoding="utf-8")
        for deployed, here in (
            ("/tmp/", f"{folder}/"),  # first: the other places may lie below /tmp
            ("listen 8080;", f"listen 127.0.0.1:{port};"),
            ("http://orthanc:8042;", f"{archive_url};"),
            ("/srv/viewer;", f"{BUILT};"),
            ("/etc/viewer/", f"{DEPLOYED}/"),
        ):
            assert deployed in text
            text = text.replace(deployed, here)
        config.write_text(text, encoding="utf-8")
        command = [find_program("nginx", "nginx-light"), "-p", str(folder), "-e", str(folder / "error.log"), "-c"]
        # As root its workers would be nobody, who may not look into a checkout of root's.
        own = ["-g", "user root;"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen([*command, str(config), *own])
        wait_for("the viewer's server answers", self._answers, 20)

    def status(self, method: str, path: str) -> int:
        """What a request without a body is answered by."""
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "nginx ended"
        try:
            return self.status("GET", "/app-config.js") == 200
        except OSError:
            return False

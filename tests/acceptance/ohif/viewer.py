"""The viewer of deploy/: the built OHIF behind nginx, over an Orthanc's DICOMweb."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.external import find_program
from tests.served import ROOT, take_port, wait_for

BUILT = ROOT / ".ohif"
"""Where `make setup` puts OHIF."""

_FRAME = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    include /etc/nginx/mime.types;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


class ViewerServer:
    """nginx with the configuration that deploy/viewer/ ships, its variables filled in as the image does."""

    def __init__(self, folder: Path, archive_url: str) -> None:
        if not (BUILT / "index.html").exists():
            missing = f"OHIF is not in {BUILT.name}/: `make setup` fetches it"
            pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
        port = take_port()
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir()
        variables = {
            "VIEWER_LISTEN": f"127.0.0.1:{port}",
            "VIEWER_ROOT": str(BUILT),
            "VIEWER_CONFIG": str(ROOT / "deploy" / "viewer" / "app-config.js"),
            "ARCHIVE_URL": archive_url,
        }
        template = (ROOT / "deploy" / "viewer" / "nginx.conf.template").read_text(encoding="utf-8")
        server = re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], template)
        config = folder / "nginx.conf"
        config.write_text(_FRAME.format(folder=folder, server=server), encoding="utf-8")
        command = [find_program("nginx", "nginx-light"), "-p", str(folder), "-e", str(folder / "error.log"), "-c"]
        self._process = subprocess.Popen([*command, str(config)])
        wait_for("the viewer's server answers", self._answers, 20)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "nginx ended"
        try:
            with urllib.request.urlopen(f"{self.url}/app-config.js", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

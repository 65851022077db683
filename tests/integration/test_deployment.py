"""deploy/ as far as it can be tried without a container engine: schema, paths, ports, commands, units.

The acceptance test of OHIF runs the archive's and the viewer's files; here is what they and the node have to agree on.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import typer.main
import yaml

from dicomnode import cli
from dicomnode.dimse.security import expires_at, web_context
from dicomnode.node import Actor
from dicomnode.sections import TLSSettings
from dicomnode.settings import load
from dicomnode.web.accounts import Accounts
from tests.external import find_program, run_program
from tests.orthanc import deployed_settings
from tests.served import ROOT

DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
CONTAINERFILES = sorted(DEPLOY.rglob("Containerfile"))
COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def instructions(containerfile: Path) -> list[list[str]]:
    """Its lines, continued ones joined, each as words; a list in JSON is words too."""
    text = containerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [[word.strip('[],"') for word in line.split()] for line in lines]


def published(service: str) -> list[tuple[str, int]]:
    """Address and port of the container for each published port."""
    found = [re.fullmatch(r"(.+):(\d+):(\d+)", port) for port in SERVICES[service].get("ports", [])]
    return [(one[1], int(one[3])) for one in found if one]


def units() -> list[Path]:
    return [path for pattern in ("*.service", "*.timer") for path in sorted(UNITS.glob(pattern))]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_a_compose_file_keeps_to_the_schema(name: str) -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    run_program(program, "--builtin-schema", "vendor.compose-spec", DEPLOY / name)


def test_compose_names_only_what_is_there() -> None:
    for config in COMPOSE["configs"].values():
        assert (DEPLOY / config["file"]).is_file()
    for service in SERVICES.values():
        if build := service.get("build"):
            assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
        assert {one["source"] for one in service.get("configs", [])} <= COMPOSE["configs"].keys()
        assert set(service.get("networks", [])) <= COMPOSE["networks"].keys()
        assert set(service.get("depends_on", {})) <= SERVICES.keys()
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= COMPOSE["volumes"].keys()
    cuda = yaml.safe_load((DEPLOY / "compose.cuda.yaml").read_text(encoding="utf-8"))["services"]
    assert cuda.keys() == {name for name, one in SERVICES.items() if "args" in one.get("build", {})}


def test_compose_works_without_any_variable_and_shows_itself_to_this_machine_alone() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert all(re.match(r"\w+(:[-+]|\}@postgres)", found) for found in re.findall(r"\$\{([^ ]+)", text))
    addresses = {address for name in SERVICES for address, _ in published(name)}
    assert addresses == {"127.0.0.1", "${BIND:-127.0.0.1}"}


def test_services_of_ours_have_no_rights() -> None:
    for name in ("node", "keys", "orthanc", "viewer"):
        service = SERVICES[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_node_archive_and_viewer_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_DATABASE__URL", "")  # as compose says without PostgreSQL
    monkeypatch.setenv("DICOMNODE_WEB__NAMES", "[]")
    settings, _ = load(DEPLOY / "compose.toml")
    orthanc = deployed_settings()
    entry = orthanc["DicomModalities"]["pancreas"]
    assert (entry["Host"], entry["AET"], entry["Port"]) == ("node", settings.listener.ae_title, settings.listener.port)
    assert settings.listener.allowed_callers == (orthanc["DicomAet"],)
    (destination,) = settings.destinations
    assert (destination.host, destination.ae_title, destination.port) == ("orthanc", "ORTHANC", orthanc["DicomPort"])
    assert [source.url for source in settings.sources] == [f"http://orthanc:{orthanc['HttpPort']}/dicom-web"]
    assert orthanc["DicomWeb"]["Root"] == "/dicom-web/"
    assert settings.database_url == "sqlite:////var/lib/dicomnode/node.db"
    assert f"proxy_pass http://orthanc:{orthanc['HttpPort']};" in (DEPLOY / "viewer" / "nginx.conf").read_text()
    assert published("node") == [("${BIND:-127.0.0.1}", settings.web.port)]
    assert published("orthanc") == [("${BIND:-127.0.0.1}", orthanc["DicomPort"])]
    targets = {one["source"]: one["target"] for service in SERVICES.values() for one in service.get("configs", [])}
    assert targets["node"] == SERVICES["node"]["environment"]["DICOMNODE_CONFIG"]
    assert [targets["route"]] == orthanc["LuaScripts"]
    written = {volume.split(":")[1] for name in ("node", "orthanc") for volume in SERVICES[name]["volumes"]}
    assert written == {str(settings.archive.path.parent), orthanc["StorageDirectory"]}


def test_the_keys_that_compose_makes_are_ones_the_node_takes(tmp_path: Path) -> None:
    find_program("openssl", "openssl")
    service = SERVICES["keys"]
    for _ in range(2):  # what is there stays
        subprocess.run([*service["entrypoint"], *service["command"]], cwd=tmp_path, check=True, capture_output=True)
        made = (tmp_path / "private" / "node.crt").read_bytes()
    settings = tomllib.loads((DEPLOY / "compose.toml").read_text(encoding="utf-8"))
    place = {name: tmp_path / Path(path).relative_to("/var/lib/dicomnode") for name, path in settings["tls"].items()}
    now = datetime.now(UTC)
    web_context(TLSSettings(**place), now)
    assert expires_at(place["certificate"]) > now + timedelta(days=800)
    assert place["certificate"].read_bytes() == made
    assert Accounts(tmp_path / Path(settings["web"]["users"]).relative_to("/var/lib/dicomnode")).find("anybody") is None


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_an_image_is_made_of_what_is_there_and_runs_without_rights(path: Path) -> None:
    is_node = path.parent == DEPLOY
    context = ROOT if is_node else path.parent
    steps = instructions(path)
    for step in steps:
        if step[0] == "COPY" and not step[1].startswith("--from"):
            assert all((context / source).exists() for source in step[1:-1]), step
    users = [step[1] for step in steps if step[0] == "USER"]
    assert users[-1:] in (["10001"], ["10002"], ["orthanc"])
    assert [step[0] for step in steps if step[0] in ("HEALTHCHECK", "ENTRYPOINT", "CMD")] == [
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ]


def test_the_node_s_image_gets_what_it_copies_and_runs_a_command_that_exists() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    steps = instructions(DEPLOY / "Containerfile")
    sources = {source for step in steps if step[0] == "COPY" and "--from" not in step[1] for source in step[1:-1]}
    assert sources == set(allowed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entrypoint, command = (next(step[1:] for step in steps if step[0] == name) for name in ("ENTRYPOINT", "CMD"))
    assert entrypoint[0] in project["scripts"]
    assert command[0] in COMMANDS
    assert "postgresql" in project["optional-dependencies"]


def test_what_the_packages_need_beside_python_is_installed_with_them() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    for package in ("dicomnode", "models"):
        tracked = subprocess.run(["git", "ls-files", package], cwd=ROOT, capture_output=True, text=True, check=True)
        data = [Path(name) for name in tracked.stdout.splitlines() if not name.endswith(".py")]
        for path in data:
            inside = str(path.relative_to(package))
            assert any(fnmatch(inside, pattern.replace("**/", "")) for pattern in setup[package]), path


class Answer(BaseHTTPRequestHandler):
    """A web interface that says one thing."""

    def __init__(self, status: int, *args: Any) -> None:
        self.status = status
        super().__init__(*args)

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a web interface that answers with this status."""
    with HTTPServer(("127.0.0.1", 0), partial(Answer, request.param)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(("web", "is_well"), [(200, True), (503, False)], indirect=["web"])
def test_the_health_check_asks_the_web_interface(web: int, is_well: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_WEB__PORT", str(web))
    complaint = runpy.run_path(str(DEPLOY / "health.py"))["main"]()
    assert (complaint is None) == is_well


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as docs/deployment.md installs them, with a program and a user that this machine has."""
    folder = tmp_path_factory.mktemp("units")
    for unit in units():
        text = unit.read_text(encoding="utf-8").replace(
            "/opt/dicomnode/.venv/bin/dicomnode", shutil.which("true") or ""
        )
        (folder / unit.name.replace("@", "@worker")).write_text(re.sub("(?m)^(User|Group)=.*$", "", text))
    for prefix in ("dicomnode", "dicomnode@", "dicomnode-"):
        (folder / f"{prefix}.service.d").mkdir()
        shutil.copy(UNITS / "hardening.conf", folder / f"{prefix}.service.d")
    return folder


def test_systemd_takes_the_units(installed: Path) -> None:
    analyse = find_program("systemd-analyze", "systemd")
    names = [str(path) for path in installed.iterdir() if path.is_file()]
    assert len(names) == len(units()) >= 6
    assert run_program(analyse, "verify", "--man=no", *names) == ""


@pytest.mark.parametrize("unit", ["dicomnode.service", "dicomnode@worker.service", "dicomnode-backup.service"])
def test_the_units_are_hardened(installed: Path, unit: str) -> None:
    analyse = find_program("systemd-analyze", "systemd")
    run_program(analyse, "security", "--no-pager", "--offline=true", "--threshold=25", installed / unit)


def test_units_run_commands_that_exist() -> None:
    started = [line for unit in units() for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    for line in started:
        program, command, *rest = line.removeprefix("ExecStart=").split()
        assert program == "/opt/dicomnode/.venv/bin/dicomnode"
        options = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, line
    assert len(started) == 4
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert all(actor in text for actor in Actor)

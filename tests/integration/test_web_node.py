"""The web interface of a running node: a process of its own, whose end holds nobody else up."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from dicomnode import node
from dicomnode.dimse import web_context
from dicomnode.discretion import DiscreetFormatter
from dicomnode.node import Actor, utc_now
from dicomnode.sections import WebSettings
from dicomnode.settings import load
from dicomnode.store import presence
from dicomnode.web.server import serve
from tests.certificates import make_identity
from tests.clinic import Clinic
from tests.served import take_port, wait_for

ROOT = Path(__file__).parents[2]


def fetch(port: int, path: str = "/health/live") -> dict[str, Any] | None:
    """What it answers, or None: nobody does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return dict(json.loads(answer.read()))
    except OSError:
        return None


def actors(running: node.Node) -> set[str]:
    """Those that gave a sign of life and did not end in order."""
    with running._database.read() as connection:
        return {sign.actor for sign in presence.signs(connection)}


def test_the_web_comes_back_by_itself_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """First its port is taken, then it is killed; the other actor runs in this process all the while."""
    monkeypatch.setattr(node, "_RETRY_S", 0.1)
    monkeypatch.setattr(node, "_RESTART_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        config = tmp_path / "node.toml"
        config.write_text(f'[archive]\npath = "{tmp_path}/archive"\n[web]\nport = {port}\n', encoding="utf-8")
        running = node.Node(load(config)[0], config)
        thread = Thread(target=running.serve, args=(frozenset({Actor.HOUSEKEEPER, Actor.WEB}),))
        thread.start()
        log = ""
        while "web.port" not in log:
            assert thread.is_alive()
            log += capfd.readouterr().err
    assert f"web.port: 127.0.0.1:{port}: Address already in use" in log
    assert "Traceback" not in log
    try:
        wait_for("it answers", lambda: fetch(port))
        assert actors(running) == {"housekeeper", "web"}
        (web,) = psutil.Process().children()
        web.kill()
        wait_for("it is gone", lambda: not psutil.pid_exists(web.pid))
        wait_for("another one answers", lambda: fetch(port))
        assert thread.is_alive()
    finally:
        running.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert fetch(port) is None
    assert "housekeeper" not in actors(running)


def test_https_is_spoken_to_browsers_without_a_certificate(tmp_path: Path) -> None:
    ca = make_identity(tmp_path / "ca")
    certified = make_identity(tmp_path / "node", ca).settings()
    clinic, stop, port = Clinic(tmp_path), Event(), take_port()
    settings, context = WebSettings(port=port), web_context(certified, utc_now())
    thread = Thread(target=serve, args=(clinic.app(), settings, context, stop))
    thread.start()
    trust = ssl.create_default_context(cafile=certified.ca)
    try:
        wait_for("it answers", lambda: _answers(port, trust))
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def _answers(port: int, trust: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(f"https://localhost:{port}/health/live", timeout=5, context=trust) as answer:
            return bool(json.loads(answer.read()) == {"status": "ok"})
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):  # not yet
            return False
        raise


def test_case_34_an_error_in_a_page_is_logged_without_its_text_and_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app, stop, port = Clinic(tmp_path).app(), Event(), take_port()

    def fail() -> None:
        raise RuntimeError("Doe^Jane")

    app.add_api_route("/P-4711", fail)
    thread = Thread(target=serve, args=(app, WebSettings(port=port), None, stop))
    thread.start()
    try:
        wait_for("it answers", lambda: fetch(port))
        assert fetch(port, "/P-4711") is None
    finally:
        stop.set()
        thread.join(20)
    for record in caplog.records:
        record.exc_text = None  # which pytest's own formatter leaves there
    logged = "\n".join(DiscreetFormatter().format(record) for record in caplog.records)
    assert "RuntimeError in" in logged
    assert "Jane" not in logged
    assert "4711" not in logged


def test_the_web_and_its_command_load_no_pytorch() -> None:
    program = "import sys, dicomnode.cli, dicomnode.web.app, dicomnode.web.server; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120).returncode == 0

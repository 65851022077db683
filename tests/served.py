"""A node as its users run it: a process of its own, with a configuration file and a bundle."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
import torch

from models.bundle import write_bundle
from models.networks import build
from tests.fakes import CARD

ROOT = Path(__file__).parents[1]
_ARGUMENTS = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [2, 2], "strides": [1], "norm": None}


class Victim(StrEnum):
    """What a SIGKILL meets."""

    EVERYTHING = "node and worker"
    NODE = "node alone"
    WORKER = "worker alone"


def take_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(what: str, is_so: Callable[[], object], within_s: float = 90.0) -> None:
    """Look until it is so; fails naming what was waited for."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.1)


def write_tiny_bundle(folder: Path) -> None:
    """A U-Net of a few weights, for the flow alone: its output layer is set so that it marks something everywhere."""
    torch.manual_seed(5)
    network = build("UNet", _ARGUMENTS)
    card = replace(CARD, patch=(32, 48, 64), overlap=0.0, spacing_mm=(4.0, 4.0, 4.0))
    card = replace(card, network="UNet", network_arguments=_ARGUMENTS)
    with torch.no_grad():
        last = [
            module for module in network.modules() if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d)
        ][-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 1.0]))
    write_bundle(folder, card, network, "# For tests: marks everything\n")


class ServedNode:
    """`dicomnode serve` in a process group of its own, stopped, killed and started again."""

    def __init__(self, folder: Path, pacs: tuple[str, int]) -> None:
        """pacs: AE title and port on this machine."""
        self.folder = folder
        self.port = take_port()
        self.config = folder / "node.toml"
        write_tiny_bundle(folder / "bundle")
        title, port = pacs
        self.config.write_text(
            f'[listener]\nport = {self.port}\n[archive]\npath = "{folder}/archive"\nreserve_gb = 0\n'
            f'[series]\nquiet_seconds = 1\nminimum_slices = 10\n[worker]\ndevice = "cpu"\nmodel = "{folder}/bundle"\n'
            "lease_seconds = 2\nmax_attempts = 20\nretry_seconds = 0.5\nretry_cap_seconds = 2\n"
            "[web]\nenabled = false\n[courier]\nretry_seconds = 0.5\nretry_cap_seconds = 2\ntimeout_seconds = 2\n"
            f'[[destinations]]\nname = "pacs"\nae_title = "{title}"\nhost = "127.0.0.1"\nport = {port}\n',
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        self.launch()
        wait_for("the node listens", self.listens)

    def launch(self) -> None:
        """Start it without waiting for its listener."""
        with (self.folder / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("serve"), cwd=ROOT, stderr=log, env=self._environment(), start_new_session=True
            )

    def listens(self) -> bool:
        assert self.is_running, self.log()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self, victim: Victim = Victim.EVERYTHING) -> None:
        """SIGKILL: no time to tidy up. A worker that is left alone has to end by itself."""
        assert self._process is not None
        node = psutil.Process(self._process.pid)
        workers = node.children(recursive=True)
        doomed = {Victim.EVERYTHING: [node, *workers], Victim.NODE: [node], Victim.WORKER: workers}[victim]
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if victim is not Victim.WORKER:
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(40)

    def processes(self) -> list[int]:
        """Everything that runs with this node's configuration, an orphaned worker too."""
        mine = str(self.config)
        return [one.pid for one in psutil.process_iter(["cmdline"]) if mine in (one.info["cmdline"] or ())]

    def jobs(self) -> list[dict[str, Any]]:
        done = subprocess.run(
            self._command("jobs", "--json", "--limit", "100000"), cwd=ROOT, capture_output=True, env=self._environment()
        )
        assert done.returncode == 0, done.stderr.decode()
        return list(json.loads(done.stdout))

    def log(self) -> str:
        return (self.folder / "node.log").read_text(encoding="utf-8", errors="replace")

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dicomnode", *arguments, "--config", str(self.config)]

    @staticmethod
    def _environment() -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DICOMNODE_")}
        return {**kept, "OMP_NUM_THREADS": "1"}

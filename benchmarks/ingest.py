"""Durable ingest rate: this node's receiver beside dcmtk's storescp and Orthanc, in one run, with one sender.

Every measurement starts a server on an empty folder, sends the same uncompressed CT slices with dcmtk's `storescu`, and
counts what arrived. The servers take turns, so that a slow moment of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from pydicom import dcmread
from pydicom.uid import generate_uid
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "samples" / "ge-discovery-abdomen"
# Without it dcmtk waits for delayed acknowledgements: 22 instances a second, whatever the receiver.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("DICOMNODE_")}
ENVIRONMENT |= {"TCP_NODELAY": "1", "PATH": os.environ["PATH"] + ":/usr/sbin"}
START_S, SEND_S = 60, 600

Command = Callable[[Path, int], list[str]]


def dicomnode(folder: Path, port: int) -> list[str]:
    config = folder / "node.toml"
    config.write_text(f'[listener]\nport = {port}\n[archive]\npath = "{folder / "archive"}"\nreserve_gb = 0\n')
    return [sys.executable, "-m", "dicomnode", "serve", "--only", "receiver", "--config", str(config)]


def storescp(folder: Path, port: int) -> list[str]:
    (folder / "files").mkdir()
    return ["storescp", "--output-directory", str(folder / "files"), str(port)]


def orthanc(folder: Path, port: int) -> list[str]:
    config = folder / "orthanc.json"
    settings: dict[str, object] = {"DicomPort": port, "HttpServerEnabled": False, "DicomCheckCalledAet": False}
    settings |= {"StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db")}
    config.write_text(json.dumps(settings))
    return ["Orthanc", str(config)]


SERVERS: dict[str, Command] = {"dicomnode": dicomnode, "storescp": storescp, "Orthanc": orthanc}


def make_slices(folder: Path, count: int) -> list[Path]:
    """Uncompressed copies of the sample's slices (half a megabyte each), every one an instance of its own."""
    folder.mkdir()
    sources = sorted(SAMPLE.glob("*.dcm"))
    paths = []
    for index in range(count):
        dataset = dcmread(sources[index % len(sources)])
        dataset.decompress()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(None)
        paths.append(folder / f"{index:05d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def measure(command: Command, folder: Path, slices: list[Path], associations: int) -> float:
    """Instances a second, from the start of the senders to the end of the last one."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command(folder, port), stdout=log, stderr=log, env=ENVIRONMENT, cwd=ROOT)
        try:
            wait_until_listening(port)
            seconds = send(port, slices, associations)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    largest = sum(1 for file in folder.rglob("*") if file.is_file() and file.stat().st_size > 400_000)
    if largest < len(slices):
        raise SystemExit(f"{command.__name__}: {largest} of {len(slices)} instances are on disk")
    shutil.rmtree(folder)
    return len(slices) / seconds


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + START_S
    while subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True, env=ENVIRONMENT).returncode:
        if time.monotonic() > deadline:
            raise SystemExit(f"the server on port {port} does not answer")
        time.sleep(0.2)


def send(port: int, slices: list[Path], associations: int) -> float:
    commands = [
        ["storescu", "-aec", "ANY", "127.0.0.1", str(port), *map(str, slices[start::associations])]
        for start in range(associations)
    ]
    started = time.perf_counter()
    senders = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) for command in commands]
    if any(sender.wait(SEND_S) for sender in senders):
        raise SystemExit("storescu reported a failure")
    return time.perf_counter() - started


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--instances", type=int, default=200)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--associations", type=int, nargs="+", default=[1, 4])
    options.add_argument(
        "--folder", type=Path, default=ROOT / "build", help="on the disk to measure; a temporary one is made below"
    )
    chosen = options.parse_args()
    servers = {name: command for name, command in SERVERS.items() if name == "dicomnode" or on_path(name)}
    rates: dict[tuple[str, int], list[float]] = {}
    chosen.folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=chosen.folder) as temporary:
        slices = make_slices(Path(temporary) / "slices", chosen.instances)
        for repeat in track(range(chosen.repeats), "measuring", console=Console(stderr=True)):
            for associations in chosen.associations:
                for name, command in servers.items():
                    rate = measure(command, Path(temporary) / f"{name}-{repeat}", slices, associations)
                    rates.setdefault((name, associations), []).append(rate)
    show(rates, chosen.instances, chosen.repeats)


def on_path(name: str) -> bool:
    found = shutil.which(name, path=ENVIRONMENT["PATH"]) is not None
    if not found:
        print(f"{name} is not installed and is left out", file=sys.stderr)
    return found


def show(rates: dict[tuple[str, int], list[float]], instances: int, repeats: int) -> None:
    title = f"C-STORE of {instances} CT slices of 0.5 MB, median of {repeats} runs, {os.cpu_count()} cores, "
    table = Table("receiver", "associations", "instances/s", "lowest to highest", "dicomnode is")
    for (name, associations), values in sorted(rates.items(), key=lambda item: (item[0][1], item[0][0].lower())):
        ratio = median(rates["dicomnode", associations]) / median(values)
        cells = [name, str(associations), f"{median(values):.0f}", f"{min(values):.0f} to {max(values):.0f}"]
        table.add_row(*cells, "" if name == "dicomnode" else f"{ratio:.2f} times as fast")
    Console(width=120).print(title + platform.machine(), table, sep="\n")


if __name__ == "__main__":
    main()

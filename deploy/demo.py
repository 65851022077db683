"""The demo: a node and an archive on loopback; a real CT goes in by C-STORE, SEG and SR come back by C-STORE.

Run by `make demo`. Needs no rights and no network; everything it writes is in `demo-output/`, or the folder
that DEMO_OUTPUT names.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, SegmentationStorage, Verification

from dicomnode import dimse
from dicomnode.database import open_database
from dicomnode.errors import Unavailable
from dicomnode.jobs import JobState
from dicomnode.store import queue
from pipeline.preview import draw_overlay
from pipeline.series import open_series, read_volume
from pipeline.volume import Segmentation

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "samples" / "ge-discovery-abdomen"
OUTPUT = Path(os.environ.get("DEMO_OUTPUT", ROOT / "demo-output")).resolve()
NAMES = {SegmentationStorage: "seg.dcm", Comprehensive3DSRStorage: "sr.dcm"}
START_S, RESULT_S, STOP_S = 60, 900, 30

CONFIG = """\
[listener]
port = {node_port}
[archive]
path = "{folder}/archive"
reserve_gb = 0.1
[series]
quiet_seconds = 2
[web]
enabled = false
[[destinations]]
name = "demo-archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive_port}
"""


class Failed(Exception):
    """The demo cannot go on; the text says why."""


def main() -> int:
    """Run the demo; 0 when the volume came back."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    archive_port, node_port = free_ports(2)
    config = OUTPUT / "node.toml"
    config.write_text(CONFIG.format(node_port=node_port, archive_port=archive_port, folder=OUTPUT), encoding="utf-8")
    try:
        with archive(archive_port), node(config) as process:
            peer = dimse.Peer("PANCREAS", "127.0.0.1", node_port)
            wait_until_listening(process, peer)
            print(f"node    {peer}, sending its results to ARCHIVE@127.0.0.1:{archive_port}", flush=True)
            send_sample(peer)
            wait_for_results(process)
        show()
    except Failed as error:
        print(f"demo failed: {error}\nThe node's log: {OUTPUT / 'node.log'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def archive(port: int) -> Iterator[None]:
    """A PACS that keeps what it is sent as `demo-output/seg.dcm` and `sr.dcm`."""
    entity = AE("ARCHIVE")
    entity.add_supported_context(Verification)
    for sop_class in NAMES:
        entity.add_supported_context(sop_class, AllTransferSyntaxes)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    try:
        yield
    finally:
        server.shutdown()


def keep(event: evt.Event) -> int:
    """Store one result: complete under its name, or not there."""
    target = OUTPUT / NAMES[event.request.AffectedSOPClassUID]
    temporary = target.with_suffix(".part")
    temporary.write_bytes(event.encoded_dataset())
    temporary.replace(target)
    print(f"archive received {target.name} from {event.assoc.requestor.ae_title}", flush=True)
    return 0x0000


@contextmanager
def node(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`dicomnode serve` as a process, ended by SIGTERM. Of DICOMNODE_* only the worker's settings are handed on."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DICOMNODE_") or name.startswith("DICOMNODE_WORKER__")
    }
    command = [sys.executable, "-m", "dicomnode", "serve", "--config", str(config)]
    with (OUTPUT / "node.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_listening(process: subprocess.Popen[bytes], peer: dimse.Peer) -> None:
    """Ask by C-ECHO until the node answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        refuse_if_ended(process)
        try:
            dimse.echo(peer, "DEMO", 5.0)
        except Unavailable:
            time.sleep(0.5)
        else:
            return
    raise Failed(f"the node does not answer a C-ECHO after {START_S} s")


def refuse_if_ended(process: subprocess.Popen[bytes]) -> None:
    """Raise Failed with the last words of a node that ended."""
    if process.poll() is not None:
        log = (OUTPUT / "node.log").read_text(errors="replace")
        reasons = [line.removeprefix("dicomnode: ") for line in log.splitlines() if line.startswith("dicomnode: ")]
        raise Failed(f"the node ended with {process.returncode}: {reasons[0] if reasons else log[-200:]}")


def send_sample(peer: dimse.Peer) -> None:
    """`dicomnode send`: C-STORE, each instance answered by a status of its own."""
    command = [sys.executable, "-m", "dicomnode", "send", str(SAMPLE), "--to", str(peer)]
    print(f"sending {SAMPLE.relative_to(ROOT)}: dicomnode send {SAMPLE.relative_to(ROOT)} --to {peer}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise Failed(f"sending failed: {done.stderr.strip()}")
    print(f"        {done.stdout.strip()}; the node measures them now", flush=True)


def wait_for_results(process: subprocess.Popen[bytes]) -> None:
    """Until SEG and SR are here, or the node says why they never will be."""
    database = open_database(f"sqlite:///{OUTPUT / 'node.db'}")
    started = time.monotonic()
    try:
        while time.monotonic() < started + RESULT_S:
            refuse_if_ended(process)
            if all((OUTPUT / name).exists() for name in NAMES.values()):
                print(f"results came back {time.monotonic() - started:.0f} s after the last slice", flush=True)
                return
            with database.read() as connection:
                ended = [job for job in queue.list_jobs(connection, 1) if job.state not in ("queued", "running")]
            if ended and ended[0].state != JobState.DONE:
                raise Failed(f"the job is {ended[0].state}: {ended[0].reason}")
            if ended and (OUTPUT / "sr.dcm").exists() and ended[0].reason == "nothing found":
                raise Failed("the model found no pancreas; the SR says so")
            time.sleep(0.5)
    finally:
        database.close()
    raise Failed(f"no SEG and SR within {RESULT_S} s")


def show() -> None:
    """Print the volume that the received SR states, and draw the received SEG onto the CT."""
    report = dcmread(OUTPUT / "sr.dcm")
    volume = read_volume(series := open_series(sorted(SAMPLE.glob("*.dcm"))))
    received = hd.seg.segread(OUTPUT / "seg.dcm").get_volume(combine_segments=True).match_geometry(series.grid.geometry)
    mask = np.ascontiguousarray(received.array.astype(bool))
    draw_overlay(volume, Segmentation(mask, series.grid, 0.0), OUTPUT / "overlay.png")
    print(f"\npancreas volume, as the SR states it: {stated_volume(report)}")
    for name, what in (("seg.dcm", "DICOM SEG"), ("sr.dcm", "TID 1500 SR"), ("overlay.png", "the SEG on the CT")):
        print(f"  {what:<18} {OUTPUT / name}")
    print("Not a medical device. The shipped model is a demonstration; see its card in models/bundles.")


def stated_volume(item: Dataset) -> str:
    """The value and unit of the volume (118565006, SCT) in a tree of content items."""
    for child in item.get("ContentSequence", []):
        if child.ValueType == "NUM" and child.ConceptNameCodeSequence[0].CodeValue == "118565006":
            measured = child.MeasuredValueSequence[0]
            return f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
        if found := stated_volume(child):
            return found
    return ""


if __name__ == "__main__":
    sys.exit(main())

"""Memory, threads and open files of a running node's listener over many associations and half-open connections.

One thread asks for C-ECHO all the while; the node has to answer each time.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psutil
from analyse import SAMPLE
from pydicom import dcmread
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

from dicomnode import dimse
from dicomnode.dimse import Peer
from dicomnode.errors import Unavailable

SETTINGS = """
[listener]
port = {port}
max_associations_per_minute = 1000000
[archive]
path = "{folder}/archive"
reserve_gb = 0
"""


@dataclass
class Watch:
    """Looks at a process, and asks it for C-ECHO, until it is told to stop."""

    process: psutil.Process
    peer: Peer
    answered: int = 0
    longest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self, stop: Event) -> None:
        while not stop.wait(0.5):
            self.rss_mb.append(self.process.memory_info().rss / 1e6)
            self.threads.append(self.process.num_threads())
            self.files.append(self.process.num_fds())

    def ask(self, stop: Event) -> None:
        while not stop.wait(0.2):
            begun = time.monotonic()
            try:
                dimse.echo(self.peer, "WATCH", 30.0)
                self.answered += 1
            except Unavailable as error:
                self.failures.append(str(error))
            self.longest_s = max(self.longest_s, time.monotonic() - begun)


@contextmanager
def watching(process: psutil.Process, peer: Peer) -> Iterator[Watch]:
    watch, stop = Watch(process, peer), Event()
    threads = [Thread(target=run, args=(stop,)) for run in (watch.look, watch.ask)]
    for thread in threads:
        thread.start()
    try:
        yield watch
        time.sleep(3.0)  # what the work left behind shows when it is over
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def serving(folder: Path) -> Iterator[tuple[psutil.Process, Peer]]:
    """The node, receiving only."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "node.toml"
    config.write_text(SETTINGS.format(port=port, folder=folder), encoding="utf-8")
    command = [sys.executable, "-m", "dicomnode", "serve", "--only", "receiver", "--config", str(config)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        peer = Peer("PANCREAS", "127.0.0.1", port)
        while True:
            try:
                dimse.echo(peer, "WATCH", 5.0)
                break
            except Unavailable:
                time.sleep(0.2)
        yield psutil.Process(process.pid), peer
        process.terminate()


def associate(peer: Peer, count: int, folder: Path) -> None:
    """So many associations, four at a time: C-ECHO, and in each tenth an instance by C-STORE."""
    source = next(SAMPLE.glob("*.dcm"))

    def one(number: int) -> None:
        if number % 10:
            dimse.echo(peer, "BENCH", 60.0)
            return
        instance, file = dcmread(source), folder / f"{number}.dcm"
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        instance.save_as(file)
        list(dimse.send(peer, "BENCH", [file], 60.0))
        file.unlink()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))


def connect(peer: Peer, count: int) -> None:
    """So many connections that never say a word, held for a while."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((peer.host, peer.port), 30))
        time.sleep(15.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--associations", type=int, default=10_000)
    parser.add_argument("--half-open", type=int, default=1_000)
    options = parser.parse_args()
    table = Table(
        "", "seconds", "RSS, MB", "at the end", "threads", "at the end", "files", "at the end", "C-ECHO", "longest"
    )
    with tempfile.TemporaryDirectory() as temporary, serving(Path(temporary)) as (process, peer):
        associate(peer, 200, Path(temporary))  # imports, caches, the first heap
        work: dict[str, Callable[[], None]] = {
            f"{options.associations} associations": lambda: associate(peer, options.associations, Path(temporary)),
            f"{options.half_open} half-open connections": lambda: connect(peer, options.half_open),
        }
        for name, run in work.items():
            begun = time.monotonic()
            with watching(process, peer) as watch:
                run()
            cells = [name, f"{time.monotonic() - begun:.0f}"]
            for values in (watch.rss_mb, watch.threads, watch.files):
                cells += [f"{min(values):.0f} to {max(values):.0f}", f"{values[-1]:.0f}"]
            asked = watch.answered + len(watch.failures)
            table.add_row(*cells, f"{watch.answered} of {asked}", f"{watch.longest_s:.1f} s")
            for failure in watch.failures[:5]:
                print(failure)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

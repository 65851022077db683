"""Seconds and peak memory of `dicomnode analyse` on the sample series, each run in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "samples" / "ge-discovery-abdomen"


@dataclass(frozen=True)
class Run:
    wall_s: float
    processor_s: float
    peak_mb: float


def run(source: Path, out: Path) -> Run:
    """One analysis. Peak memory is the largest resident set of the process (getrusage of this child alone)."""
    command = [sys.executable, "-m", "dicomnode", "analyse", str(source), "--out", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode(errors="replace").strip())
    to_mb = 1e-6 if sys.platform == "darwin" else 1024 / 1e6
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * to_mb)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("source", type=Path, nargs="?", default=SAMPLE)
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = [run(chosen.source.resolve(), Path(temporary)) for _ in range(chosen.repeats)]
        report = json.loads((Path(temporary) / "findings.json").read_text())
    size, model = " x ".join(map(str, report.get("slices_rows_columns", []))), report["model"]
    title = (
        f"dicomnode analyse {chosen.source.name} ({size}), {model['name']} {model['version']}, {os.cpu_count()} cores"
    )
    table = Table("", "median", "lowest to highest")
    for name, values in (
        ("seconds", [one.wall_s for one in runs]),
        ("processor seconds", [one.processor_s for one in runs]),
        ("peak memory, MB", [one.peak_mb for one in runs]),
    ):
        table.add_row(name, f"{median(values):.1f}", f"{min(values):.1f} to {max(values):.1f}")
    Console(width=120).print(title, table, sep="\n")


if __name__ == "__main__":
    main()

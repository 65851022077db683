"""`python -m tests.acceptance.crash --kills 300 --seed 1`: a long campaign, printed as a table."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.acceptance.crash.campaign import Report, run_campaign


def tabulate(report: Report) -> Table:
    kills = sum(count for what, count in report.kills.items() if what.startswith("while"))
    table = Table(title=f"{kills} kills, seed {report.seed}, {report.seconds:.0f} s", show_header=False)
    for title, counts in (
        ("kills", report.kills),
        ("tried", asdict(report.tally)),
        ("must be zero", asdict(report.faults)),
    ):
        table.add_section()
        table.add_row(f"[bold]{title}")
        for what, count in counts.items():
            table.add_row(what.replace("_", " "), f"{count}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder, console = Path(tempfile.mkdtemp(prefix="crash-")), Console()
    with Progress(console=console) as bar:
        task = bar.add_task("kills", total=arguments.kills)
        report = run_campaign(folder, arguments.kills, arguments.seed, lambda done: bar.update(task, completed=done))
    console.print(tabulate(report))
    if report.faults.any:
        console.print(f"something was lost, doubled or left; all of it is in {folder}")
    return int(report.faults.any)


if __name__ == "__main__":
    raise SystemExit(main())

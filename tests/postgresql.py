"""A PostgreSQL server of the tests' own: in a folder, behind a socket, gone afterwards."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy

from tests.external import find_program

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # where Debian keeps what nobody starts by hand
_QUICK = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses="


class Server:
    """Makes empty schemas, which are quicker to make and to drop than databases."""

    def __init__(self, folder: Path) -> None:
        self._url = f"postgresql+psycopg://tests@/postgres?host={folder}"
        self._numbers = itertools.count()

    def make(self) -> str:
        """The URL of a place where nothing is."""
        name = f"node{next(self._numbers)}"
        engine = sqlalchemy.create_engine(self._url)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        engine.dispose()
        return f"{self._url}&options=-csearch_path%3D{name}"


@contextmanager
def serve() -> Iterator[Server]:
    """A server until the end; the test is skipped, in CI it fails, where PostgreSQL is not installed."""
    if _BINARIES:
        os.environ["PATH"] += f":{_BINARIES[-1]}"
    control = find_program("pg_ctl", "postgresql")
    # The path of a socket has at most 107 characters, which pytest's folders exceed.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    data = folder / "data"
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        _run("initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        _run(control, "-D", data, "-l", folder / "log", "-o", f"{_QUICK} -k {folder}", "-w", "start")
        try:
            yield Server(folder)
        finally:
            _run(control, "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(*command: str | Path) -> None:
    """As the user postgres where the tests run as root, whom PostgreSQL refuses."""
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, user=user, cwd="/", timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr

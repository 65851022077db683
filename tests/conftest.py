"""Fixtures that tests of several folders take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.database import Database, open_database
from tests import postgresql


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    with postgresql.serve() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def either_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database of the node can be made, of both kinds in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/node.db"
    return str(request.getfixturevalue("postgresql_server").make())


@pytest.fixture
def either_database(either_url: str) -> Iterator[Database]:
    """An empty database of the node, of both kinds in turn."""
    opened = open_database(either_url)
    yield opened
    opened.close()

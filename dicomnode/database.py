"""Opens the database: durable SQLite or PostgreSQL, brought to the newest schema, with explicit transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, NoSuchModuleError, OperationalError

from dicomnode.errors import Misconfigured, Refused, Unavailable

__all__ = ["Condition", "Connection", "Database", "open_database", "sqlite_file"]

_BUSY_TIMEOUT_S = 30.0
_READ_ONLY = "dicomnode_read_only"


@dataclass(frozen=True)
class Condition:
    """How a database is. Of SQLite alone: how it writes (`wal`, and 2 for FULL), and what its check complains of."""

    revision: str
    newest: str
    journal_mode: str = ""
    synchronous: str = ""
    complaints: tuple[str, ...] = ()


class Database:
    """A handle on the engine that hands out transactions; the caller of the store's statements owns them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, rolled back on any error. Raises Unavailable."""
        with _away_is_unavailable(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: one snapshot, never waiting for a writer."""
        engine = self._engine.execution_options(**{_READ_ONLY: True})
        with _away_is_unavailable(), engine.begin() as connection:
            yield connection

    def copy_to(self, file: Path) -> None:
        """Write a consistent copy while others go on writing; of SQLite alone. Raises Refused or Unavailable."""
        if self._engine.dialect.name != "sqlite":
            raise Refused("this database is PostgreSQL: its own pg_dump makes consistent copies of it")
        with _away_is_unavailable(), self._engine.connect() as connection, closing(sqlite3.connect(file)) as copy:
            source: Any = connection.connection.driver_connection
            try:
                source.backup(copy)
            except sqlite3.Error as error:
                raise Unavailable(f"database: {error}") from error

    def examine(self) -> Condition:
        """Look at it without changing it. Raises Unavailable, also where it is damaged beyond reading."""
        try:
            with self.read() as connection:
                return _examine(connection)
        except DatabaseError as error:
            raise Unavailable(f"database: {error.orig}") from error

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()


def _examine(connection: Connection) -> Condition:
    newest = ScriptDirectory.from_config(_migrations()).get_current_head() or ""
    revision = MigrationContext.configure(connection).get_current_revision() or ""
    if connection.dialect.name != "sqlite":
        return Condition(revision, newest)
    pragmas = [connection.exec_driver_sql(f"PRAGMA {name}") for name in ("journal_mode", "synchronous")]
    journal_mode, synchronous = (str(pragma.scalar()) for pragma in pragmas)
    told = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(10)")]
    return Condition(revision, newest, journal_mode, synchronous, tuple(line for line in told if line != "ok"))


@contextmanager
def _away_is_unavailable() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"database: {error.orig}") from error


def open_database(url: str, *, migrate: bool = True) -> Database:
    """Open the database and migrate it to the newest schema. Raises Misconfigured where that cannot be done."""
    try:
        engine = _engine(url)
        if migrate:
            _migrate(engine)
        else:
            engine.connect().close()
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise Misconfigured(f"database.url: {error}") from None
    except (DBAPIError, OSError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise Misconfigured(f"database.url: {make_url(url).render_as_string(hide_password=True)}: {reason}") from None
    return Database(engine)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_S}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # SQLAlchemy, not the driver, opens transactions: the driver would only do so at the first write, and a read that
    # turns into a write cannot wait for another writer but fails at once with "database is locked".
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN DEFERRED" if read_only else "BEGIN IMMEDIATE")


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None: it is another, or lives in memory. Raises Misconfigured."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Misconfigured(f"database.url: {error}") from None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _migrate(engine: Engine) -> None:
    config = _migrations()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Misconfigured(f"database: made by another version of this node: {error}") from None

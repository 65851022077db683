"""The one statement that SQLite and PostgreSQL spell in dialects of their own."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(connection: Connection, table: Table, values: dict[str, Any]) -> bool:
    """Insert the row unless a unique key has it already; whether it was inserted."""
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(values).on_conflict_do_nothing()
    # Not by the count of rows, which PostgreSQL's driver does not know where SQLAlchemy asks for the new key.
    return connection.execute(statement.returning(*table.primary_key)).first() is not None

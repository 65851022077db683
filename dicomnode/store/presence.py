"""Signs of life: which actor runs where, as its process says every few seconds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from dicomnode.tables import signs_of_life

_GONE = timedelta(minutes=1)
_FORGOTTEN = timedelta(days=1)


@dataclass(frozen=True)
class SignOfLife:
    """The last one of an actor in a process. process: its host and number. started_at: of the process."""

    actor: str
    process: str
    started_at: datetime
    seen_at: datetime


def show(connection: Connection, actors: Collection[str], process: str, now: datetime) -> None:
    """These actors of the process live; the first time the process started.

    Of the same actors, those on this host that died before are forgotten: this process took their place.
    """
    c = signs_of_life.c
    here = c.process.startswith(f"{process.rpartition(':')[0]}:", autoescape=True)
    replaced = here & c.actor.in_(actors) & (c.seen_at < now - _GONE)
    connection.execute(delete(signs_of_life).where(replaced | (c.seen_at < now - _FORGOTTEN)))
    if not connection.execute(update(signs_of_life).where(c.process == process).values(seen_at=now)).rowcount:
        rows = [{"actor": actor, "process": process, "started_at": now, "seen_at": now} for actor in actors]
        connection.execute(insert(signs_of_life), rows)


def leave(connection: Connection, process: str) -> None:
    """The process ends in order."""
    connection.execute(delete(signs_of_life).where(signs_of_life.c.process == process))


def signs(connection: Connection) -> list[SignOfLife]:
    """The last sign of every actor in every process that did not end in order, by actor, the newest first."""
    c = signs_of_life.c
    statement = select(c.actor, c.process, c.started_at, c.seen_at).order_by(c.actor, c.seen_at.desc())
    return [SignOfLife(*row) for row in connection.execute(statement)]

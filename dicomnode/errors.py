"""What can go wrong in the node, named by the reaction.

Refused         never retry: the input itself is at fault (pipeline.errors.Refused and its kin)
Unavailable     retry later: a PACS, the disk or the database is away for now
Misconfigured   stop at start-up: a person must change a setting first
"""

from pipeline.errors import Refused

__all__ = ["Misconfigured", "Refused", "Unavailable"]


class Unavailable(Exception):
    """Something outside this process is away for now; the same act may succeed later."""


class Misconfigured(Exception):
    """A setting, a file it names or the database does not fit; the text says which and what to do."""

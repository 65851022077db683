"""One CT series in, findings out: no network, no database, no clock."""

VERSION = "0.1.0"
"""Version of the measuring path; it stands in every result and is part of every derived UID."""

"""Measurements of many patients as one tidy table, a row each, and pseudonyms for it."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dicomnode.errors import Refused
from dicomnode.history import moment_of

Row = dict[str, Any]

_IDENTIFIERS = ("study_instance_uid", "series_instance_uid")
_LEFT_OUT = ("patient_id", "issuer_of_patient_id", "acquired_at", "measured_at", "invalid_because", "job_id", "source")
"""What identifies, dates or was typed by people. Models of scanners, kernels and the node's own words stay."""
_LEAST_KEY_BYTES = 16
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(rows: Sequence[Row], path: Path) -> None:
    """Write .csv or .parquet, by the ending. Raises Refused for another, or where pyarrow is not installed."""
    if path.suffix == ".csv":
        write_csv(rows, path)
    elif path.suffix == ".parquet":
        _write_parquet(rows, path)
    else:
        raise Refused(f"{path.name}: the ending decides the format: .csv or .parquet")


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write a CSV file in UTF-8 with a header line; without rows it is empty."""
    path.write_text(to_csv(rows), encoding="utf-8", newline="")


def to_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV (RFC 4180).

    Text that a spreadsheet would run as a formula gets an apostrophe in front: identifiers come from strangers.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Refused("Parquet needs pyarrow: pip install 'pancreas-dicomnode[parquet]'") from None
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def read_key(path: Path | None) -> bytes:
    """The secret of a file, or one for this once. Raises Refused where it cannot be read or is too short to hide."""
    if path is None:
        return secrets.token_bytes(32)
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}") from None
    if len(key) < _LEAST_KEY_BYTES:
        raise Refused(f"{path}: a key has {_LEAST_KEY_BYTES} bytes or more")
    return key


def pseudonymise(rows: Sequence[Row], key: bytes) -> list[Row]:
    """The rows with pseudonyms for IDs and UIDs, days since a patient's first measurement for dates, and no free text.

    The same key gives the same pseudonyms (HMAC-SHA256); who has it can test a guess. Rare scanners or volumes may
    still tell who somebody is: the table is pseudonymous, not anonymous.
    """
    first: dict[str, datetime] = {}
    for row in rows:
        if (moment := moment_of(row["acquired_at"])) is not None:
            first[row["counts_for"]] = min(moment, first.get(row["counts_for"], moment))
    return [_hide(row, key, first.get(row["counts_for"])) for row in rows]


def _hide(row: Row, key: bytes, first: datetime | None) -> Row:
    moment = moment_of(row["acquired_at"])
    days = None if moment is None or first is None else round((moment - first).total_seconds() / 86400, 3)
    hidden = {name: _pseudonym(row[name], key) for name in _IDENTIFIERS}
    kept = {name: value for name, value in row.items() if name not in (*_LEFT_OUT, *_IDENTIFIERS, "counts_for")}
    return {"patient": _pseudonym(row["counts_for"], key), "day": days, **kept, **hidden}


def _pseudonym(text: str, key: bytes) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:16]

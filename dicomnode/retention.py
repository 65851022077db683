"""What may be removed, and when: by age and by quota, never what is still needed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate

KEPT_AT_LEAST = timedelta(days=1)
"""Whatever the settings say, nothing younger than this is removed."""


class Files(StrEnum):
    """Which of a series' files."""

    RECEIVED = "received"
    RESULTS = "results"


@dataclass(frozen=True)
class RetentionRule:
    """How long files are kept; None: for ever. The quota is on received files alone."""

    received_days: float | None = None
    results_days: float | None = None
    quota_bytes: int | None = None

    def concerns(self, files: Files) -> bool:
        """Whether any of these files may ever go."""
        if files is Files.RESULTS:
            return self.results_days is not None
        return self.received_days is not None or self.quota_bytes is not None


@dataclass(frozen=True)
class Holding:
    """The files of one series that stand together: those received, or those of its results.

    newest_at: when the last of them came or was made. is_waiting: instances of the series wait for a job.
    open_jobs: its jobs that are not ended, or failed. open_deliveries: results that are not at every destination, or
    not yet confirmed by one that promises to. is_undelivered: results that no destination was to have.
    """

    series_instance_uid: str
    newest_at: datetime
    size_bytes: int = 0
    is_waiting: bool = False
    open_jobs: int = 0
    open_deliveries: int = 0
    is_undelivered: bool = False


def why_kept(holding: Holding, now: datetime) -> str:
    """What forbids to remove the files, whatever the settings say; empty: nothing does."""
    if now - holding.newest_at < KEPT_AT_LEAST:
        return "newer than a day"
    if holding.is_waiting:
        return "waits for a job"
    if holding.open_jobs:
        return "a job is not ended, or failed"
    if holding.open_deliveries:
        return "a result is not delivered, or not confirmed"
    return "no destination has the result" if holding.is_undelivered else ""


def due(files: Files, holdings: Sequence[Holding], rule: RetentionRule, now: datetime) -> list[Holding]:
    """Those to remove now, oldest first: the old ones, then as many as the quota asks for.

    holdings: all that there are of these files, those that must be kept among them.
    """
    removable = sorted((one for one in holdings if not why_kept(one, now)), key=lambda one: one.newest_at)
    days = rule.received_days if files is Files.RECEIVED else rule.results_days
    old = [one for one in removable if days is not None and now - one.newest_at >= timedelta(days=days)]
    if files is Files.RESULTS or rule.quota_bytes is None:
        return old
    excess = sum(one.size_bytes for one in holdings) - rule.quota_bytes
    return removable[: max(len(old), _count_to_free(removable, excess))]


def _count_to_free(oldest_first: Sequence[Holding], excess_bytes: int) -> int:
    """How many of the oldest hold so many bytes together; all of them where they are not enough."""
    freed = accumulate((one.size_bytes for one in oldest_first), initial=0)
    return next((count for count, size in enumerate(freed) if size >= excess_bytes), len(oldest_first))

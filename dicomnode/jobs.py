"""Job: one series to be measured, its states and moves as a table, and the retry policy. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicomnode.lifecycle import Backoff


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    REFUSED = "refused"
    FAILED = "failed"


class JobEvent(StrEnum):
    """What moves a job."""

    CLAIM = "claim"
    FINISH = "finish"
    REFUSE = "refuse"
    POSTPONE = "postpone"
    EXPIRE = "expire"
    GIVE_UP = "give-up"
    REQUEUE = "requeue"
    SUPERSEDE = "supersede"


MOVES: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.CLAIM): JobState.RUNNING,
    (JobState.QUEUED, JobEvent.SUPERSEDE): JobState.SKIPPED,
    (JobState.RUNNING, JobEvent.FINISH): JobState.DONE,
    (JobState.RUNNING, JobEvent.REFUSE): JobState.REFUSED,
    (JobState.RUNNING, JobEvent.POSTPONE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.EXPIRE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.GIVE_UP): JobState.FAILED,
    (JobState.DONE, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.SKIPPED, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.REFUSED, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.FAILED, JobEvent.REQUEUE): JobState.QUEUED,
}
"""A job is born queued, or skipped with the reason why its series is not analysed."""


@dataclass(frozen=True)
class Job:
    """A revision of a series: its instances up to `last_instance_id`, which fixes the content for good.

    attempts: how often it was claimed. not_before: the earliest time of the next claim.
    created_at: when the series was complete; the results carry it as content time: a rerun makes the same objects.
    """

    id: int
    series_instance_uid: str
    revision: int
    state: JobState
    reason: str
    attempts: int
    last_instance_id: int
    instance_count: int
    created_at: datetime
    not_before: datetime
    updated_at: datetime


@dataclass(frozen=True)
class RetryPolicy:
    """How often a job is tried and how long it waits in between."""

    max_attempts: int
    backoff: Backoff

    def is_exhausted(self, attempts: int) -> bool:
        """Whether a job that was claimed this often may not be tried again."""
        return attempts >= self.max_attempts

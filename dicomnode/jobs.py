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
    SUPERSEDED = "superseded"


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
    (JobState.RUNNING, JobEvent.FINISH): JobState.DONE,
    (JobState.RUNNING, JobEvent.REFUSE): JobState.REFUSED,
    (JobState.RUNNING, JobEvent.POSTPONE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.EXPIRE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.GIVE_UP): JobState.FAILED,
    (JobState.DONE, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.SKIPPED, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.REFUSED, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.FAILED, JobEvent.REQUEUE): JobState.QUEUED,
    (JobState.QUEUED, JobEvent.SUPERSEDE): JobState.SUPERSEDED,
    (JobState.RUNNING, JobEvent.SUPERSEDE): JobState.SUPERSEDED,
    (JobState.DONE, JobEvent.SUPERSEDE): JobState.SUPERSEDED,
    (JobState.SKIPPED, JobEvent.SUPERSEDE): JobState.SUPERSEDED,
    (JobState.REFUSED, JobEvent.SUPERSEDE): JobState.SUPERSEDED,
    (JobState.FAILED, JobEvent.SUPERSEDE): JobState.SUPERSEDED,
}
"""A job is born queued, or skipped with the reason why its series is not analysed.

When a revision of a series is queued, every earlier one is superseded: of a series at most one job is neither that nor
skipped, so that two results never both count.
"""


@dataclass(frozen=True)
class Job:
    """A revision of a series: its instances up to `last_instance_id`, which fixes the content for good.

    instance_count: how many those are. expected_instances: how many there should be as far as `expected_by` knows, the
    headers or an archive; None: nobody says so.
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
    expected_instances: int | None
    expected_by: str
    created_at: datetime
    not_before: datetime
    updated_at: datetime

    @property
    def shortfall(self) -> str:
        """What is missing of the series, in words without identifiers; empty where nothing is known to be missing."""
        if self.expected_instances is None or self.instance_count >= self.expected_instances:
            return ""
        return f"{self.instance_count} of {self.expected_instances} instances, as {self.expected_by} counted"


@dataclass(frozen=True)
class RetryPolicy:
    """How often a job is tried and how long it waits in between."""

    max_attempts: int
    backoff: Backoff

    def is_exhausted(self, attempts: int) -> bool:
        """Whether a job that was claimed this often may not be tried again."""
        return attempts >= self.max_attempts

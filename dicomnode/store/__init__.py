"""Every SQL statement of the node; the caller owns the transaction (`Database.begin` or `Database.read`).

receiving   instances, and the series that wait for a job
queue       jobs: claim under a lease, move, timeline
outbox      results, measurements and deliveries
subjects    whose study a job is about
commitments what archives were asked to confirm
watch       alarms and refusals
pulls       series that rules found in archives
presence    which actor runs where
history     the volumes of patients, and what people corrected
listing     jobs and series as the dashboard lists them
viewing     what is shown of a series beside its measurement

The same statements serve SQLite, where a write transaction is alone, and PostgreSQL, where rows are locked.
"""


class LeaseLost(Exception):
    """The work is no longer this holder's: its lease ran out and somebody else moved it."""


class Unknown(Exception):
    """No row has this key."""

"""Puller: the actor that follows the rules of one source: it finds what is new there, and fetches each series once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from dicomnode.auditor import Auditor
from dicomnode.database import Database
from dicomnode.endpoints import PullSettings
from dicomnode.errors import Refused, Unavailable
from dicomnode.lifecycle import Backoff
from dicomnode.pulling import Filters, FoundStudy, PullEvent, PullPatience, Query, Rhythm, is_whole_here
from dicomnode.receiver import Receiver
from dicomnode.settings import Settings
from dicomnode.sources import Source, open_source
from dicomnode.store import pulls, watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """What is looked for, and when. at_most: studies, of which something is new, that one look takes up."""

    name: str
    rhythm: Rhythm
    look_back: timedelta
    at_most: int
    filters: Filters

    @classmethod
    def of(cls, settings: PullSettings) -> Rule:
        """As the settings say."""
        return cls(
            settings.name,
            Rhythm(timedelta(minutes=settings.every_minutes), frozenset(settings.hours)),
            timedelta(days=settings.look_back_days),
            settings.at_most,
            Filters(
                settings.modality,
                settings.study_description,
                settings.series_description,
                settings.minimum_instances,
            ),
        )

    def query(self, local: datetime) -> Query:
        """What the archive is asked for. local: the time in the zone of its Study Dates."""
        return Query(since=(local - self.look_back).date(), modality=self.filters.modality)


@dataclass(frozen=True)
class Orders:
    """What the puller of one source goes by. alarm_after: so long may everything fail."""

    source: str
    rules: Sequence[Rule]
    patience: PullPatience
    alarm_after: timedelta


def hire(
    settings: Settings, database: Database, receiver: Receiver, auditor: Auditor, clock: Callable[[], datetime]
) -> list[Puller]:
    """A puller for each source that a rule names. Raises Misconfigured."""
    patient, hired = settings.puller, []
    backoff = Backoff(patient.retry_seconds, patient.retry_cap_seconds)
    patience, alarm_after = (
        PullPatience(backoff, patient.give_up_hours * 3600),
        timedelta(minutes=patient.alarm_minutes),
    )
    for described in settings.sources:
        if rules := [Rule.of(rule) for rule in settings.pull if rule.source == described.name]:
            source = open_source(described, settings, receiver, auditor, clock())
            hired.append(Puller(database, source, Orders(described.name, rules, patience, alarm_after), clock))
    return hired


class Puller:
    """Pulls from one source; another that is away does not concern it. One puller for each source."""

    def __init__(self, database: Database, source: Source, orders: Orders, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._source = source
        self._orders = orders
        self._clock = clock
        self._looked_at: dict[str, datetime] = {}  # forgotten by a restart, after which to look again does no harm
        self._failing_since: datetime | None = None

    @property
    def name(self) -> str:
        """Of its source."""
        return self._orders.source

    def run(self, stop: Event, idle_s: float = 5.0) -> None:
        """Step until `stop` is set; a failed step is logged and tried again."""
        while not stop.is_set():
            did_something = False
            try:
                did_something = self.step()
            except Exception:
                log.exception("pulling from %s failed; trying again", self.name)
            if not did_something:
                stop.wait(idle_s)

    def step(self) -> bool:
        """Let the rules look that are due, and fetch one series; whether there was one."""
        local = self._clock().astimezone()
        for rule in self._orders.rules:
            if rule.rhythm.is_due(self._looked_at.get(rule.name), local):
                self._looked_at[rule.name] = local
                self._look(rule, local)
        return any(rule.rhythm.is_open(local) for rule in self._orders.rules) and self._fetch()

    def _look(self, rule: Rule, local: datetime) -> None:
        studies = found = 0
        try:
            for study in self._source.find(rule.query(local)):
                new = self._want(rule, study)
                found += new
                studies += bool(new)
                if studies >= rule.at_most:
                    break
        except (Refused, Unavailable) as error:
            self._fail(f"{rule.name}: {error}")
            return
        self._succeed()
        if found:
            log.info("%s: %d series of %d studies are to be fetched", rule.name, found, studies)

    def _want(self, rule: Rule, study: FoundStudy) -> int:
        """Note what is new of a study; how many series."""
        chosen, name = rule.filters.choose(study), self.name
        with self._database.read() as connection:
            new = [series for series in chosen if pulls.is_new(connection, name, series)]
        if new:
            with self._database.begin() as connection:
                for series in new:
                    pulls.want(connection, name, rule.name, series, self._clock())
        return len(new)

    def _fetch(self) -> bool:
        now, backoff = self._clock(), self._orders.patience.backoff
        with self._database.read() as connection:
            if not pulls.is_any_due(connection, self.name, now):
                return False
        with self._database.begin() as connection:
            wanted = pulls.begin(connection, self.name, now, now + timedelta(seconds=backoff.first_s))
        if wanted is None:
            return False
        try:
            self._settle(wanted, PullEvent.FETCH, self._bring(wanted))
            self._succeed()
        except (Refused, Unavailable) as error:
            event = self._orders.patience.after_failure(wanted.since, self._clock())
            self._settle(wanted, event, str(error))
            self._fail(str(error))
        return True

    def _bring(self, wanted: pulls.Wanted) -> str:
        """Have the series here, and say how. Raises Refused or Unavailable."""
        if is_whole_here(self._count(wanted), wanted.series):
            return "was here already"
        told = self._source.fetch(wanted.series)
        here = self._count(wanted)
        if not here:
            raise Unavailable(f"{told}, says the archive, but none is here: does it know this node's host and port?")
        return f"{told}; {here} are here"

    def _count(self, wanted: pulls.Wanted) -> int:
        with self._database.read() as connection:
            return pulls.count_here(connection, wanted.series.series_instance_uid)

    def _settle(self, wanted: pulls.Wanted, event: PullEvent, reason: str) -> None:
        now = self._clock()
        not_before = now + timedelta(seconds=self._orders.patience.backoff.wait_s(wanted.attempts))
        with self._database.begin() as connection:
            pulls.settle(connection, wanted, event, reason, now, not_before=not_before)
        level = logging.INFO if event is PullEvent.FETCH else logging.WARNING
        log.log(level, "a series of %s: %s: %s", self.name, event, reason)

    def _fail(self, reason: str) -> None:
        """Take note that the source failed; where it does so for long the alarm is raised."""
        now = self._clock()
        self._failing_since = self._failing_since or now
        log.warning("%s: %s", self.name, reason)
        if now - self._failing_since >= self._orders.alarm_after:
            text = f"nothing could be pulled since {self._failing_since:%Y-%m-%d %H:%M} UTC: {reason}"
            with self._database.begin() as connection:
                watch.raise_alarm(connection, watch.AlarmKind.PULL, self.name, text, now)

    def _succeed(self) -> None:
        """Take note that the source works; the alarm goes unless a series is given up."""
        self._failing_since, name = None, self.name
        with self._database.read() as connection:
            if not watch.is_on(connection, watch.AlarmKind.PULL, name) or pulls.count_failed(connection, name):
                return
        with self._database.begin() as connection:
            watch.clear_alarm(connection, watch.AlarmKind.PULL, name, self._clock())

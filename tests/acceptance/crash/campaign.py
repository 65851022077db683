"""A campaign: modalities send, the node is killed again and again, and in the end everything has to be right."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.acceptance.crash.inventory import Faults, Tally, is_over, let_leftovers_age, take_inventory
from tests.acceptance.crash.peers import Collector, Modality
from tests.phantom import PhantomOptions, write_series
from tests.served import ServedNode, Victim, wait_for

MODALITIES = 4
SERIES_AT_ONCE = 2
_SHAPE, _SPACING_MM = (16, 20, 25), (6.0, 8.0, 8.0)
_PATIENCE_S = 20.0  # for what should happen before a kill: where nothing comes, the node is killed all the same
_TO_THE_END_S = 1800.0


class Phase(StrEnum):
    """What the node was last seen at when it was killed."""

    STARTING = "starting"
    RECEIVING = "receiving"
    MEASURING = "measuring"
    DELIVERING = "delivering"


# Measuring and delivering need a worker, whose start takes seconds; so they are rarer.
_WEIGHTS = {Phase.STARTING: 4, Phase.RECEIVING: 6, Phase.MEASURING: 3, Phase.DELIVERING: 3}
_LONGEST_DELAY_S = {Phase.STARTING: 3.0, Phase.RECEIVING: 0.3, Phase.MEASURING: 0.6, Phase.DELIVERING: 0.1}


@dataclass
class Report:
    """What was tried, and what came of it. kills: by phase and by victim."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    faults: Faults = field(default_factory=Faults)
    seconds: float = 0.0


class Campaign:
    """Everything of one campaign in one folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.report = Report(seed)
        self._folder = folder
        self._chance = random.Random(seed)
        self._collector = Collector()
        self._node = ServedNode(folder, ("PACS", self._collector.port))
        self._modalities = [Modality(f"CT-{number}", self._node.port) for number in range(1, MODALITIES + 1)]
        self._series: list[list[Path]] = []
        self._starts = 0

    def run(self, kills: int, progress: Callable[[int], None] = lambda _: None) -> Report:
        """Kill that often, let everything come to its end, look at what is there."""
        began = time.monotonic()
        for modality in self._modalities:
            modality.start()
        try:
            with suppress(KeyboardInterrupt):  # which ends it early; what was done so far is judged all the same
                for number in range(kills):
                    self._kill_once()
                    progress(number + 1)
            self._come_to_the_end()
        finally:
            self._collector.go_down()
            if self._node.is_running:
                self._node.kill()
        self.report.seconds = time.monotonic() - began
        return self.report

    def _kill_once(self) -> None:
        self._feed()
        (phase,) = self._chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        if phase is Phase.STARTING and self._node.is_running:
            self._kill(Phase.RECEIVING, Victim.EVERYTHING)  # the last kill took the worker alone
            return
        self._start(wait=phase is not Phase.STARTING)
        if phase is Phase.DELIVERING or self._chance.random() < 0.6:
            self._collector.come_up()
        else:
            self._collector.go_down()
        if not self._await(phase):
            phase = Phase.RECEIVING
        time.sleep(self._chance.uniform(0, _LONGEST_DELAY_S[phase]))
        self._kill(phase, self._choose_victim(phase))

    def _feed(self) -> None:
        """New series for modalities that have none, and now and then an old one once more."""
        idle = [modality for modality in self._modalities if not modality.is_busy]
        for modality in idle[:SERIES_AT_ONCE]:
            if self._series and self._chance.random() < 0.15:
                modality.give(self._chance.choice(self._series))
                self.report.tally.series_sent_again += 1
                continue
            folder = self._folder / "series" / str(len(self._series))
            folder.mkdir(parents=True)
            self._series.append(
                write_series(folder, PhantomOptions(_SHAPE, _SPACING_MM, seed=f"series {folder.name}, image "))
            )
            modality.give(self._series[-1])

    def _start(self, wait: bool) -> None:
        if not self._node.is_running:
            self._node.launch()
            self._starts += 1
        if wait:
            wait_for("the node listens", self._node.listens)

    def _await(self, phase: Phase) -> bool:
        """Wait for the moment that this kill is for; whether it came."""
        if phase is Phase.STARTING:
            return True
        seen, enough = {
            Phase.RECEIVING: (self._acknowledgements, self._chance.randint(1, 12)),
            Phase.MEASURING: (self._attempts, 1),
            Phase.DELIVERING: (lambda: self._collector.requests, 1),
        }[phase]
        before, deadline = seen(), time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if seen() >= before + enough:
                return True
            time.sleep(0.005)
        return False

    def _acknowledgements(self) -> int:
        return sum(modality.acknowledgements for modality in self._modalities)

    def _attempts(self) -> int:
        return self._node.log().count(": started, attempt")

    def _choose_victim(self, phase: Phase) -> Victim:
        victims = list(Victim) if phase is Phase.MEASURING else [Victim.EVERYTHING, Victim.EVERYTHING, Victim.NODE]
        return self._chance.choice(victims)

    def _kill(self, phase: Phase, victim: Victim) -> None:
        self._node.kill(victim)
        self.report.kills[f"while {phase}"] += 1
        self.report.kills[str(victim)] += 1

    def _come_to_the_end(self) -> None:
        report, node = self.report, self._node
        self._collector.come_up()
        self._start(wait=True)
        report.faults.senders_stuck = sum(not one.finish(_TO_THE_END_S) for one in self._modalities)
        with suppress(AssertionError):  # what is stuck is counted below
            wait_for("every job done and delivered", lambda: is_over(node), _TO_THE_END_S)
        report.faults.unclean_stops += node.stop() != 0
        let_leftovers_age(node)
        node.start()  # repairs once more
        report.faults.unclean_stops += node.stop() != 0
        report.tally.starts = self._starts + 1
        take_inventory(report.tally, report.faults, node, (self._series, self._modalities, self._collector))


def run_campaign(folder: Path, kills: int, seed: int, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Run a campaign in an empty folder, whose contents are removed where nothing was wrong."""
    report = Campaign(folder, seed).run(kills, progress)
    if not report.faults.any:
        shutil.rmtree(folder)
    return report

"""What comes over associations, counted by study: one message when it begins, one when the association is over."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dicomnode.arrivals import Patient, StoredInstance
from dicomnode.audit.events import Result, Study, Transfer, instances_transferred, transfer_begun
from dicomnode.audit.messages import Action, Entity
from dicomnode.audit.trail import Trail

_MOST_INSTANCES = 1000  # of one association; then they are reported, so that neither memory nor delay grows without end


class _Subject(NamedTuple):
    study_uid: str
    patient: Patient


@dataclass
class _Part:
    """Instances that came together. begun: the studies whose beginning is reported."""

    sender: Entity
    begun: set[_Subject] = field(default_factory=set)
    sop_classes: dict[tuple[_Subject, Action], Counter[str]] = field(default_factory=dict)
    last_at: dict[tuple[_Subject, Action], datetime] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(counter.total() for counter in self.sop_classes.values())


class Transfers:
    """Reports what was received.

    The beginning is on disk before the first instance of a study is acknowledged, so that even after a crash the trail
    names every study that came, from whom and when.
    """

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._turn = threading.Lock()
        self._parts: dict[Hashable, _Part] = {}

    def add(self, association: Hashable, sender: Entity, instance: StoredInstance, *, is_new: bool) -> None:
        """Count an instance that is stored. association: any object that stands for it."""
        subject = _Subject(instance.study_instance_uid, instance.patient)
        key = (subject, Action.CREATE if is_new else Action.READ)
        with self._turn:
            part = self._parts.setdefault(association, _Part(sender))
            begins = subject not in part.begun
            part.begun.add(subject)
            part.sop_classes.setdefault(key, Counter())[instance.sop_class_uid] += 1
            part.last_at[key] = instance.received_at
            is_full = part.count >= _MOST_INSTANCES
            if is_full:
                del self._parts[association]
        if begins:
            self._trail.record(transfer_begun(self._transfer(sender, subject, Counter()), instance.received_at))
        if is_full:
            self._report(part)

    def settle(self, is_over: Callable[[Hashable], bool]) -> None:
        """Report what came over the associations that are over, however they ended."""
        with self._turn:
            over = [self._parts.pop(association) for association in list(self._parts) if is_over(association)]
        for part in over:
            self._report(part)

    def _report(self, part: _Part) -> None:
        for (subject, action), sop_classes in part.sop_classes.items():
            transfer = self._transfer(part.sender, subject, sop_classes)
            at = part.last_at[subject, action]
            self._trail.record(instances_transferred(transfer, Result(action), at))

    def _transfer(self, sender: Entity, subject: _Subject, sop_classes: Counter[str]) -> Transfer:
        return Transfer(sender, self._trail.node, Study(*subject, sop_classes))

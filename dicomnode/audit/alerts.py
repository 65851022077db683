"""Security alerts: the first at once, then one a minute, so that who keeps trying cannot fill the disk."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicomnode.audit.events import security_alert
from dicomnode.audit.messages import Code, Entity
from dicomnode.audit.trail import Trail

_INTERVAL = timedelta(minutes=1)
_MOST_CAUSES = 1000
_MANY = Entity("several", "", "several addresses")

_Cause = tuple[str, Code, str]


@dataclass
class _Repeated:
    peer: Entity
    since: datetime
    count: int = 0


class Alerts:
    """Reports what peers were refused."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._turn = threading.Lock()
        self._known: dict[_Cause, _Repeated] = {}

    def sound(self, peer: Entity, alert: Code, reason: str, now: datetime) -> None:
        """Report it, or count it where the same was reported of the same address within the minute.

        alert: of CID 401. reason: in words that the peer has no say in.
        """
        with self._turn:
            if len(self._known) >= _MOST_CAUSES and (peer.address, alert, reason) not in self._known:
                peer = _MANY
            cause = (peer.address, alert, reason)
            is_first = cause not in self._known
            repeated = self._known.setdefault(cause, _Repeated(peer, now))
            repeated.count += not is_first
        if is_first:
            self._trail.record(security_alert(self._trail.node, peer, alert, reason, now))

    def settle(self, now: datetime) -> None:
        """Report how often it happened again, once the minute is over."""
        with self._turn:
            over = {cause: found for cause, found in self._known.items() if now - found.since >= _INTERVAL}
            for cause, found in over.items():
                del self._known[cause]
                if found.count:
                    self._known[cause] = _Repeated(found.peer, now)
        for (_, alert, reason), found in over.items():
            if found.count:
                said = f"{reason}, {found.count} more times"
                self._trail.record(security_alert(self._trail.node, found.peer, alert, said, now))

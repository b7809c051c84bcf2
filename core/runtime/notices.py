"""Waits that nothing will end are reported: nobody waits in silence.

    a wait in get or wait --every notice_s / 2--> reason (reasons.py)
        the same cause twice, and nothing runs that could end it --> Notice -> head: once per cause -> driver: stderr

Work that runs is progress, however long it takes, and so is a turn behind such work: of these nobody hears a word. Of
resources that running tasks use up, and of processes that do not answer, only after `_PATIENCE` times as long.
"""

from __future__ import annotations

from collections.abc import Callable

from .reasons import Kind, Reason

#: How much longer a wait may last that will probably end by itself.
_PATIENCE = 6


class WaitWatch:
    """One wait that goes on and on."""

    def __init__(self, verb: str, notice_s: float, tell: Callable[[str, str], None]) -> None:
        """
        Args:
          verb: get or wait.
          notice_s: what waits this long is reported.
          tell: (cause, words) where to report.
        """
        self._verb = verb
        self._notice_s = notice_s
        self._tell = tell
        self._last_key = ""
        self._waited_s = 0.0
        self._told = ""

    @property
    def interval_s(self) -> float:
        """Time between two looks."""
        return self._notice_s / 2

    def look(self, why: Callable[[], Reason]) -> None:
        """Another interval has passed; `why` finds out the reason."""
        self._waited_s += self.interval_s
        reason = why()
        before, self._last_key = self._last_key, reason.key
        if not reason.key or reason.key != before or reason.key == self._told:
            return
        patience = {Kind.STUCK: 1, Kind.ENDLESS: 1, Kind.BUSY: _PATIENCE, Kind.UNKNOWN: _PATIENCE}.get(reason.kind)
        if patience is not None and self._waited_s >= patience * self._notice_s:
            self._told = reason.key
            self._tell(reason.key, f"{self._verb} has been waiting for {self._waited_s:g} s: {reason.text}")

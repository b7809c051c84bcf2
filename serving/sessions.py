"""Recurrent states that the server keeps for its clients, by the names of their sessions. A table: the time comes in.

A session begins with zeros, and goes on from the state that its last observation left. The table has a bound: when it
is full, the session that was used longest ago goes; and one that nobody has used for ``idle_s`` goes, too. Who comes
back for it begins anew, unless he says that this is no beginning (``episode_start`` of false): then he is told.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from .errors import BadRequest


class Sessions:
    """States of one server's sessions.

    Args:
      max_sessions: How many are kept at most, of all policies together.
      idle_s: How long one is kept that nobody uses.

    Raises:
      ValueError: a number is not positive.
    """

    def __init__(self, *, max_sessions: int, idle_s: float) -> None:
        if max_sessions < 1 or not idle_s > 0.0:
            raise ValueError(f"max_sessions and idle_s must be positive, not {max_sessions} and {idle_s}")
        self._max_sessions, self._idle_s = max_sessions, idle_s
        #: (policy, session) -> its state [S], and when it was used last; in the order of use.
        self._kept: OrderedDict[tuple[str, str], tuple[np.ndarray, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def states(
        self, policy: str, sessions: Sequence[str], episode_start: np.ndarray | None, size: int, now_s: float
    ) -> np.ndarray:
        """The states to act from.

        Args:
          policy: Its name.
          sessions: N names.
          episode_start: [N] bool, True where an episode begins; None: wherever nothing is known of the session.
          size: S, of the policy's states.
          now_s: When.

        Returns:
          [N, S] float32, the caller's own.

        Raises:
          BadRequest: of a session whose episode goes on nothing is known.
        """
        self.expire(now_s)
        states = np.zeros((len(sessions), size), np.float32)
        for row, session in enumerate(sessions):
            if episode_start is not None and episode_start[row]:
                continue
            kept = self._kept.get((policy, session))
            if kept is not None:
                states[row] = kept[0]
            elif episode_start is not None:
                raise BadRequest(
                    f"nothing is known of session {session!r}: it never began, or was not used for long, or there were "
                    f"too many others; begin its episode anew",
                    field="sessions",
                )
        return states

    def keep(self, policy: str, sessions: Sequence[str], states: np.ndarray, now_s: float) -> None:
        """Remember the states [N, S] that these sessions go on from."""
        # One copy for all rows would be kept alive by each: the rows go their own ways.
        for session, state in zip(sessions, states, strict=True):
            self._kept[policy, session] = (state.copy(), now_s)
            self._kept.move_to_end((policy, session))
        while len(self._kept) > self._max_sessions:
            self._kept.popitem(last=False)

    def expire(self, now_s: float) -> None:
        """Forget what nobody has used for so long."""
        while self._kept:
            oldest = next(iter(self._kept))
            if now_s - self._kept[oldest][1] <= self._idle_s:
                return
            del self._kept[oldest]

    def forget(self, policy: str) -> None:
        """Forget all sessions of a policy."""
        for key in [key for key in self._kept if key[0] == policy]:
            del self._kept[key]

"""How many calls of this process to each actor with `max_pending_calls` are under way. Any thread."""

from __future__ import annotations

import threading

from ..errors import PendingCallsLimitExceeded


class PendingCalls:
    """Counts by actor."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def up(self, actor_id: bytes, limit: int, name: str) -> None:
        """One more.

        Raises:
          PendingCallsLimitExceeded: there are `limit` already.
        """
        with self._lock:
            count = self._counts.get(actor_id, 0)
            if count >= limit:
                raise PendingCallsLimitExceeded(
                    f"{name}(): {count} calls of this process to the actor (actor {actor_id.hex()}) have not been "
                    f"answered, and its max_pending_calls is {limit}: get some results first"
                )
            self._counts[actor_id] = count + 1

    def down(self, actor_id: bytes) -> None:
        """One has been answered."""
        with self._lock:
            left = self._counts[actor_id] - 1
            if left:
                self._counts[actor_id] = left
            else:
                del self._counts[actor_id]

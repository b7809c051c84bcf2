"""How long a client goes on trying: within the time that its caller gave, and no faster than the server wants. Pure."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from .errors import Overloaded, ServingError, TimedOut, Unready

#: First pause after a connection that failed; it doubles.
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5


class Patience:
    """The time that one call has, over all its tries.

    Args:
      timeout_s: For all of it.
      clock: Monotonic seconds.
      jitter: From 0 to 1, so that clients that were turned away together do not come back together.
    """

    def __init__(
        self,
        timeout_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._jitter = clock, jitter
        self._end = clock() + timeout_s
        self._next_pause_s = FIRST_PAUSE_S

    def left(self) -> float:
        """Seconds that are left; less than 0 when there are none."""
        return self._end - self._clock()

    def pause(self, error: ServingError, *, can_repeat: bool) -> float:
        """Seconds to wait before another try.

        Args:
          error: What the last one ended with.
          can_repeat: Whether being acted on twice does no harm; a request that timed out may have been acted on.

        Raises:
          ServingError: the error itself, if another try cannot help, or there is no time for one.
        """
        if not error.can_retry or (isinstance(error, TimedOut) and not can_repeat):
            raise error
        if isinstance(error, Overloaded | Unready):
            pause_s = error.retry_after_s * (1 + 0.5 * self._jitter())
        else:
            pause_s = self._next_pause_s * (0.5 + 0.5 * self._jitter())
            self._next_pause_s = min(2 * self._next_pause_s, LONGEST_PAUSE_S)
        if pause_s >= self.left():
            raise error
        return pause_s

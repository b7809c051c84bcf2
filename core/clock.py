"""Time as a parameter: monotonic seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Monotonic seconds. Components take one of these, so that tests can move time by hand.
Clock = Callable[[], float]

system_clock: Clock = time.monotonic

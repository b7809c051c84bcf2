"""How processes of a session die together: by signals from the kernel, by descriptors that become readable.

    driver --- pidfd ---> zygote --- PR_SET_PDEATHSIG ---> head, workers

The zygote watches the driver through a pidfd: PR_SET_PDEATHSIG would fire when the driver's *thread* that called `init`
ends. The zygote itself has one thread, so its children can rely on it. Elsewhere than on Linux both are replaced by
looking at the parent's pid.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
#: How often the parent is looked at where the kernel tells nothing.
_LOOK_S = 0.5


def name_process(name: str) -> None:
    """Set the name that ``ps -o comm`` shows (15 characters)."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Have the calling process killed when process `parent`, its parent, ends. Call it first thing after a fork."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)
    else:
        threading.Thread(target=_look_at_parent, args=(parent,), name="shoal-lifeline", daemon=True).start()


def watch_process(pid: int) -> int | None:
    """A descriptor that can be read when process `pid` has ended; None where the system has none.

    Raises:
      ProcessLookupError: it has ended already.
    """
    if hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(pid)
        except ProcessLookupError:
            raise
        except OSError:
            return None  # an old kernel, or a container that forbids it
    return None


def wait_in_thread(has_ended: Callable[[], bool], ended: Callable[[], None]) -> None:
    """Call `ended` from a thread when `has_ended()`: for systems where `watch_process` has nothing."""

    def look() -> None:
        while not has_ended():
            time.sleep(_LOOK_S)
        ended()

    threading.Thread(target=look, name="shoal-lifeline", daemon=True).start()


def _look_at_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)

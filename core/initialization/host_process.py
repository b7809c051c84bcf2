"""What a session changes in the process that calls `init`: its limit of open files, and what SIGTERM does.

A session needs a descriptor for each process it talks to. SIGTERM ends a Python program without a word to anybody;
here it becomes ``SystemExit``, so that ``finally`` blocks run and the session is ended in order. A handler that the
program has set is left alone.
"""

from __future__ import annotations

import resource
import signal
import sys
import threading
from types import FrameType

#: As many descriptors as Ray asks for.
_WANTED_FILES = 65536


def raise_file_limit() -> None:
    """Let this process and its children open more files, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (ValueError, OSError):
        return  # macOS names a hard limit that it does not grant; the session works with fewer files


def exit_on_sigterm() -> None:
    """Let SIGTERM raise ``SystemExit``, unless the program has a handler or this is not the main thread."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def restore_sigterm() -> None:
    """Undo `exit_on_sigterm`."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _exit:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(number)

"""SIGINT in a worker: how `cancel` stops the task that runs in the main thread, and nothing else.

    strike(task) --SIGINT--> user code of that task runs      KeyboardInterrupt
                             our own code runs for it         not now: when it returns into user code
                             another task runs, or none       nothing

The loop's driver strikes, from whatever thread; the signal may reach the main thread when the task has just ended and
the next one runs. An exception that comes up in the middle of our own code would leave things half done: a task that is
in one table and not in the next, an item that is sent and not counted, memory that nobody knows of. In a finaliser it
would be swallowed, and the task would run for ever. So only user code is struck, and the places where the runtime waits
for something and is ready for it (`is_open`).

Each strike raises once. A SIGINT that user code sends to itself raises in its task likewise, and is ignored between
tasks.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import NoReturn

#: Where our code lies: as it was loaded, and absolute.
_OURS = tuple({os.path.dirname(os.path.dirname(path)) + os.sep for path in (__file__, os.path.abspath(__file__))})
#: Written on the API alone, as user code is.
_PATTERNS = tuple(core + "patterns" + os.sep for core in _OURS)
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_FIRST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.01
#: From here on our own code is struck, too.
_PATIENCE_S = 1.0


class Interruption:
    """Strikes the main thread of this process."""

    def __init__(self, *, is_open: Callable[[], bool], runs_user_code: CodeType) -> None:
        """
        Args:
          is_open: the main thread waits where an exception does no harm.
          runs_user_code: the function of ours that calls the user's; while `called` is set, its frame is as good as
            user code, which may be a function in C without a frame of its own.
        """
        self._is_open = is_open
        self._runs_user_code = runs_user_code
        self._running = b""
        self._meant = b""
        self._insisted = b""
        self._struck = False
        self._since_s = 0.0  # when a strike was put off first
        self._lies_in_wait = False
        #: The user's function has been called and has not returned. In the main thread.
        self.called = False

    def install(self) -> None:
        """Take SIGINT. In the main thread."""
        signal.signal(signal.SIGINT, self.on_signal)

    def begin(self, task_id: bytes) -> None:
        """This task runs from here on. In the main thread, like `end`."""
        self._struck = False
        self._running = task_id

    def end(self) -> None:
        self._running = b""
        if self._lies_in_wait:
            self._leave_ambush()

    def strike(self, task_id: bytes) -> None:
        """Raise KeyboardInterrupt in the main thread, if it still runs this task. Any thread."""
        if self._running == task_id:
            self._meant = task_id
            _signal_main_thread()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT."""
        running = self._running
        # What comes late after a strike is an echo of it (`_insist`); user code can be its own cause before that only.
        meant = self._meant or (b"" if self._struck else running)
        if not meant or meant != running:
            self._meant = b""
            return
        self._meant = meant
        whose, user_frame, swallowed = self._look(frame)
        if not swallowed and (whose == "user" or self._is_open() or self._patience_is_over()):
            self._raise()
        if self._insisted != meant:
            self._insisted = meant
            self._since_s = time.monotonic()
            _thread.start_new_thread(self._insist, (meant,))  # Thread() takes locks, which we may stand in
        if user_frame is not None and sys.gettrace() is None:
            self._ambush(user_frame, meant)

    def _raise(self) -> NoReturn:
        self._meant = b""
        self._struck = True
        raise KeyboardInterrupt

    def _ambush(self, user_frame: FrameType, task_id: bytes) -> None:
        """Strike when our code has returned into this frame. (Signals alone would hardly ever meet user code that does
        nothing but call us.)
        """

        def on_event(*_event: object) -> None:
            self._leave_ambush()
            if self._running == task_id and self._meant == task_id:
                self._raise()

        self._lies_in_wait = True
        user_frame.f_trace = on_event
        sys.settrace(_trace_nothing)

    def _leave_ambush(self) -> None:
        self._lies_in_wait = False
        sys.settrace(None)

    def _insist(self, task_id: bytes) -> None:
        """Send the signal again until it has struck, or the task has ended. In a thread of its own."""
        pause_s = _FIRST_PAUSE_S
        while True:
            while self._running == task_id and self._meant == task_id:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                _signal_main_thread()
            self._insisted = b""
            if not (self._running == task_id and self._meant == task_id):  # else struck anew in between
                return
            self._insisted = task_id

    def _patience_is_over(self) -> bool:
        """User code that is one call in C, which calls us for ever, never comes to see it otherwise."""
        return self._insisted == self._running and time.monotonic() - self._since_s > _PATIENCE_S

    def _look(self, frame: FrameType | None) -> tuple[str | None, FrameType | None, bool]:
        """Whose code has been interrupted; the innermost frame of user code around it; whether an exception would be
        swallowed before it came there.
        """
        whose: str | None = None
        user_frame: FrameType | None = None
        swallowed = False
        while frame is not None:
            code = frame.f_code
            if code.co_name == "__del__" or code.co_filename == weakref.__file__:
                swallowed, user_frame = True, None
            elif whose is None or user_frame is None:
                owner = self._owner(code)
                whose = whose or owner
                if user_frame is None and owner == "user" and code is not self._runs_user_code:
                    user_frame = frame
            frame = frame.f_back
        return whose, user_frame, swallowed

    def _owner(self, code: CodeType) -> str | None:
        """Whose code it is; None: of a library that both use."""
        name = code.co_filename
        if code is self._runs_user_code and self.called:
            return "user"
        if name.startswith(_OURS):
            return "user" if name.startswith(_PATTERNS) else "ours"
        if name.startswith("<frozen ") or (name.startswith(_LIBRARY) and "-packages" + os.sep not in name):
            return None
        return "user"


def _trace_nothing(frame: FrameType, event: str, argument: object) -> None:
    """Tracing is on, for the one frame that has a function of its own."""


def _signal_main_thread() -> None:
    ident = threading.main_thread().ident
    assert ident is not None, "it has started"
    signal.pthread_kill(ident, signal.SIGINT)

"""``sys.stdout`` and ``sys.stderr`` of a worker: pipes to the head, with a word in between on whose text it is.

They are made in the zygote, where they are plain: what preloaded modules keep of them works in workers too.

Each line goes out in one piece, whatever other threads print: when it ends, by ``flush``, or when its thread has added
nothing for a tenth of a second. The stream looks at what that thread runs, and announces it when it is not what was
announced last; so a task costs nothing until it prints. What goes to the descriptors by other ways (C code, child
processes) counts as whose that printed last.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..protocol.worker_output import STDERR, STDOUT, announcement
from . import context

#: Text without an end of line that goes out nevertheless.
_LONG = 64 * 1024
#: Seconds without more text after which a line that has no end goes out: print() is sooner, also on a busy machine.
_PATIENCE_S = 0.1
#: Fits into a pipe that is not full, whoever else writes.
_ATOMIC = select.PIPE_BUF // 8
#: What an actor's output is called: its class, or its own `repr`. Empty until there is an actor.
_actor_title = ""


class _Begun(NamedTuple):
    """A line without its end."""

    title: str
    text: str
    written: float  #: when the last of it came, by the monotonic clock


class TitledStream(io.TextIOWrapper):
    """Text to a descriptor. Any thread may write."""

    def __init__(self, descriptor: int) -> None:
        raw = io.FileIO(descriptor, "w", closefd=False)
        super().__init__(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self._mark = b""
        self._announced: tuple[int, str] | None = None
        #: What each thread has written since its last end of a line: print() writes a line in pieces.
        self._begun: dict[int, _Begun] = {}
        #: Has a function called after so many seconds by the thread of the loop; set where there is one.
        self.after: Callable[[float, Callable[[], None]], None] | None = None
        self._flush_is_due = False
        # Around comparing, announcing and writing: else one thread's text could follow another's announcement.
        # Re-entrant: a signal handler may print in the middle of it.
        self._lock = threading.RLock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def begin_announcing(self, mark: bytes) -> None:
        """This process is a worker, whose output somebody sorts. For the mark see worker_output.py."""
        self._mark = mark

    def write(self, text: str) -> int:
        thread = threading.get_ident()
        with self._lock:
            before = self._begun.pop(thread, None)
            title, begun = (_title(), text) if before is None else (before.title, before.text + text)
            end = begun.rfind("\n") + 1 if len(begun) < _LONG else len(begun)
            if end:
                self._put(title, begun[:end])
            if end < len(begun):
                self._begun[thread] = _Begun(title, begun[end:], time.monotonic())
                self._flush_later()
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._flush_those(list(self._begun))

    def _flush_what_is_begun(self) -> None:
        """Between two ticks of the loop, which must not wait: not for another thread's print, not for a full pipe."""
        self._flush_is_due = False
        if not self._lock.acquire(blocking=False):
            self._flush_later()
            return
        try:
            patient = time.monotonic() - _PATIENCE_S
            old = [thread for thread, begun in self._begun.items() if begun.written <= patient]
            poll = select.poll()
            poll.register(self.fileno(), select.POLLOUT)
            if old and sum(len(self._begun[thread].text) for thread in old) < _ATOMIC and poll.poll(0):
                self._flush_those(old)
            if self._begun:
                self._flush_later()
        finally:
            self._lock.release()

    def _flush_later(self) -> None:
        if self.after is not None and not self._flush_is_due:
            self._flush_is_due = True
            self.after(_PATIENCE_S, self._flush_what_is_begun)

    def _flush_those(self, threads: Sequence[int]) -> None:
        for thread in threads:
            begun = self._begun.pop(thread)
            self._put(begun.title, begun.text)
        super().flush()

    def _put(self, title: str, text: str) -> None:
        """With the name of whose it is, if the last was not. Without a name it counts as theirs who printed last."""
        now = (os.getpid(), title or (self._announced or (0, ""))[1])
        if self._mark and now != self._announced:
            self._announced = now
            super().write(announcement(self._mark, *now))
        super().write(text)

    def _renew_lock(self) -> None:
        """In a fork: the thread that held it does not exist here."""
        self._lock = threading.RLock()


def install() -> Sequence[TitledStream]:
    """Make them the streams of the zygote, before anything keeps hold of the old ones; workers inherit them."""
    streams = TitledStream(STDOUT), TitledStream(STDERR)
    for old in (sys.stdout, sys.stderr):
        if old is not None:  # what is closed where the driver runs is None here
            old.flush()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]
    return streams


def name_actor(class_name: str, actor: object) -> None:
    """This process is an actor: by what its output is called, its `repr` if its class has one of its own."""
    global _actor_title
    _actor_title = class_name
    if type(actor).__repr__ is not object.__repr__:
        try:
            _actor_title = repr(actor)
        except Exception:  # noqa: BLE001  the user's code may raise anything; the actor works without
            traceback.print_exc()


def _title() -> str:
    """Whose text is written now; empty where the thread runs nothing of ours."""
    task = context.current()
    if task is None:
        return ""
    if task.actor_id:
        return _actor_title or task.name.rpartition(".")[0]
    return task.name

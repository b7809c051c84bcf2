"""``ref.future()`` and ``await ref``: futures that are fulfilled by a thread of their own.

Loading a value and the callbacks of a future are user code. They must not run in the loop's driver, which user code
would make wait for itself.

    future(ref) -> the loop watches the object -> ready: queued -> the desk's thread loads it and sets the future
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from ..errors import ShoalError
from ..refs import ObjectRef
from .objects import Watcher


class FutureDesk:
    """All futures of one process that have not been fulfilled."""

    def __init__(
        self,
        watch: Callable[[ObjectRef, Watcher], None],
        unwatch: Callable[[ObjectRef, Watcher], None],
        load: Callable[[ObjectRef], Any],
    ) -> None:
        """
        Args:
          watch: have a function called when the object is ready.
          unwatch: take that back.
          load: its value; raises its failure.
        """
        self._watch = watch
        self._unwatch = unwatch
        self._load = load
        self._lock = threading.Lock()
        self._open: dict[int, tuple[Future[Any], ObjectRef, Watcher]] = {}
        self._ready: SimpleQueue[tuple[Future[Any], ObjectRef, bool] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._over: ShoalError | None = None

    def add(self, ref: ObjectRef, *, loaded: bool = True) -> Future[Any]:
        """A new future of the ref's value; or, if not `loaded`, of None when there is a value or a failure."""
        future: Future[Any] = Future()

        def ready(_object_id: bytes) -> None:
            self._ready.put((future, ref, loaded))

        with self._lock:
            if self._over is None:
                self._open[id(future)] = (future, ref, ready)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._deliver, name="shoal-futures", daemon=True)
                    self._thread.start()
        if self._over is not None:
            future.set_exception(self._over)
        else:
            self._watch(ref, ready)
            future.add_done_callback(self._forget_cancelled)  # as whoever awaits with a time-out does, again and again
        return future

    def _forget_cancelled(self, future: Future[Any]) -> None:
        if future.cancelled():
            with self._lock:
                entry = self._open.pop(id(future), None)
            if entry is not None:
                _, ref, ready = entry
                self._unwatch(ref, ready)

    def fail(self, error: ShoalError) -> None:
        """Nothing will become ready any more: everybody who waits gets `error`, and the thread ends."""
        with self._lock:
            self._over = error
            left = [future for future, _, _ in self._open.values()]
            self._open.clear()
        self._ready.put(None)
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _deliver(self) -> None:
        while True:
            entry = self._ready.get()
            if entry is None:
                return
            future, ref, loaded = entry
            with self._lock:
                known = self._open.pop(id(future), None)
            if known is None or not future.set_running_or_notify_cancel():
                continue
            try:
                value = self._load(ref) if loaded else None
            except BaseException as error:  # noqa: BLE001  whatever get() would raise belongs to the future
                future.set_exception(error)
            else:
                future.set_result(value)
            del entry, future, ref, known

"""The workers of a multiprocessing.Pool and the line of work before them.

    add(chunks) --> line --> a worker without work --> its future --> the chunk's result
                                    ^                     |
                                    +---------------------+   in the runtime's thread for futures

A worker has one chunk at a time, so a short one never waits behind a long one while another worker has nothing to do.
There is no thread here: whoever adds work, or hears of a result, hands the next chunk out. A worker that has died, or
has done as many chunks as it may, is replaced when there is work for it.

What crosses threads: everything under `_lock`. Calls to the runtime and to results are made without it, since they
may wait or call back.

Not here: what a chunk is cut from (process_pool.py), what becomes of its values (pool_results.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..api import ActorHandle, is_initialized, kill
from ..errors import ActorDiedError, HeadDiedError, SessionError, TaskCancelledError, TaskError
from ..refs import ObjectRef
from .pool_results import Result


class PoolWorker:
    """The class of the actors. One chunk is one call, and its first exception ends it."""

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        if initializer is not None:
            initializer(*initargs)

    def map(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return [function(item) for item in items]

    def starmap(self, function: Callable[..., Any], items: list[Iterable[Any]]) -> list[Any]:
        return [function(*item) for item in items]

    def apply(self, function: Callable[..., Any], items: list[tuple[Any, Any]]) -> list[Any]:
        return [function(*args, **kwds) for args, kwds in items]


@dataclass(slots=True)
class Chunk:
    """A piece of work."""

    method: str  #: of PoolWorker
    function: Callable[..., Any] | ObjectRef[Any]  #: a ref where many chunks share it, so that it is pickled once
    items: list[Any]
    result: Result
    number: int  #: among the chunks of its result


@dataclass(slots=True, eq=False)
class _Place:
    """Room for one worker. `handle` is None until there is work for a new one."""

    handle: ActorHandle | None
    chunks: int = 0  #: given to this worker


class Workers:
    """Runs chunks on a number of actors."""

    def __init__(self, count: int, hire: Callable[[], ActorHandle], *, chunks_each: int | None = None) -> None:
        """
        Args:
          count: how many workers, each started at once.
          hire: creates one.
          chunks_each: chunks after which a worker is replaced; None: never.
        """
        self.count = count
        self._hire = hire
        self._chunks_each = chunks_each
        self._lock = threading.Lock()
        self._done = threading.Condition(self._lock)
        self._line: deque[Chunk] = deque()
        self._places = [_Place(hire()) for _ in range(count)]
        self._idle = list(self._places)
        #: Chunks that were added and whose results have not been told, and feeders under way.
        self._open = 0
        self._closed = False
        self._end: BaseException | None = None

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Run chunks, in this order, as workers get free."""
        with self._lock:
            before = len(self._line)
            self._line.extend(chunks)
            self._open += len(self._line) - before
        self._hand_out()

    def begin(self) -> None:
        """More work will come: `wait` waits until `finish`, too."""
        with self._lock:
            self._open += 1

    def finish(self) -> None:
        """The counterpart of `begin`."""
        with self._lock:
            self._open -= 1
            self._let_go()

    def close(self) -> None:
        """End the workers when all work is done."""
        with self._lock:
            self._closed = True
            self._let_go()

    def terminate(self, error: BaseException) -> None:
        """End the workers now. Work that is not begun fails with `error`, what is under way with ActorDiedError."""
        with self._lock:
            self._closed = True
            self._end = self._end or error
            doomed = [place.handle for place in self._places if place.handle is not None]
            for place in self._places:
                place.handle = None
        if is_initialized():  # else they have ended with their session, and kill would start another
            for handle in doomed:
                kill(handle)
        self._hand_out()

    @property
    def ended(self) -> bool:
        """Whether `terminate` was called, or the session has ended."""
        return self._end is not None

    def wait(self) -> None:
        """Until all work is done. Every chunk ends: with its values, an error, or the death of its worker."""
        with self._done:
            self._done.wait_for(lambda: not self._open)

    # ---- inside

    def _hand_out(self) -> None:
        """Give what is in line to workers without work."""
        while True:
            with self._lock:
                if not self._line or not (self._idle or self._end):
                    return
                chunk = self._line.popleft()
                place = None if self._end is not None else self._idle.pop()
            if place is None:
                self._tell(chunk, None, self._end)
                continue
            try:
                future = self._start(place, chunk)
            except Exception as error:  # noqa: BLE001  the arguments cannot be pickled: this is the chunk's outcome
                with self._lock:
                    self._idle.append(place)
                self._tell(chunk, None, error)
            else:
                future.add_done_callback(partial(self._ended, place, chunk))

    def _start(self, place: _Place, chunk: Chunk) -> Future[list[Any]]:
        handle = place.handle
        if handle is None:
            handle, place.chunks = self._hire(), 0
            with self._lock:
                place.handle = handle if self._end is None else None
            if self._end is not None:  # terminated meanwhile
                kill(handle)
                raise self._end
        place.chunks += 1
        ref: ObjectRef[list[Any]] = getattr(handle, chunk.method).remote(chunk.function, chunk.items)
        return ref.future()

    def _ended(self, place: _Place, chunk: Chunk, future: Future[list[Any]]) -> None:
        error = future.exception()
        with self._lock:
            if isinstance(error, ActorDiedError) or place.chunks == self._chunks_each:
                place.handle = None
            if isinstance(error, (SessionError, HeadDiedError)):
                self._end = self._end or error  # a call now would start another session
            self._idle.append(place)
        self._hand_out()
        self._tell(chunk, None if error is not None else future.result(), error)

    def _tell(self, chunk: Chunk, values: list[Any] | None, error: BaseException | None) -> None:
        try:
            if values is None:
                assert error is not None, "a chunk ends in values or in an error"
                chunk.result.failed(chunk.number, as_raised(error))
            else:
                chunk.result.succeeded(chunk.number, values)
        finally:
            self.finish()

    def _let_go(self) -> None:
        """With the lock: when nothing is left to do, tell who waits; of a closed pool, drop the workers."""
        if self._open:
            return
        if self._closed:
            for place in self._places:
                place.handle = None
        self._done.notify_all()


def as_raised(error: BaseException) -> BaseException:
    """The exception that the user's function raised, with the remote traceback as its cause, as multiprocessing gives
    it; other errors as they are.
    """
    if not isinstance(error, TaskError) or not isinstance(error.cause, Exception):
        return error
    error.cause.__cause__ = TaskError(error.function_name, error.traceback_str, pid=error.pid)
    return error.cause


def terminated() -> TaskCancelledError:
    """The error of work that was in line when its pool was terminated."""
    return TaskCancelledError("the pool was terminated before this work was begun")

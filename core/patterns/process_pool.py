"""multiprocessing.Pool on actors: the standard library's methods, on workers of shoal.

    from shoal.util.multiprocessing import Pool

A function travels by value where it must (lambdas, closures, functions of ``__main__``), large arrays go through
shared memory, and a worker that dies fails the work it had and is replaced, where multiprocessing would wait for ever.

Where this differs from the standard library: `imap` reads its input as results are read, a few chunks ahead, and to
the end once the pool is closed; work that was in line when the pool is terminated fails with TaskCancelledError;
callbacks run in a thread of the runtime. Workers are actors without CPUs of their own, so a pool inside a task or
beside other work does not take what they need.

Who does what: this file cuts work into chunks; pool_workers.py runs them; pool_results.py puts results together.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import TimeoutError  # noqa: A004  Ray's module and the standard library's offer it by this name
from types import TracebackType
from typing import Any

from ..api import ActorHandle, init, is_initialized, put, remote
from ..state import cluster_resources
from .pool_results import AsyncResult, Callback, ImapIterator
from .pool_workers import Chunk, PoolWorker, Workers, terminated

__all__ = ["AsyncResult", "ImapIterator", "Pool", "TimeoutError"]

#: Chunks that `map` makes for each worker, so that they end together although some items take longer. As in
#: multiprocessing.
_CHUNKS_EACH = 4
#: Chunks for each worker that `imap` has under way or unread.
_WINDOW_EACH = 4


class Pool:
    """A pool of worker processes.

    Example:
      >>> with Pool(4) as pool:
      ...     pool.map(abs, [-1, 2, -3])
      [1, 2, 3]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        ray_address: str | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
          processes: number of workers; one for each CPU of the session by default.
          initializer, initargs: called in each worker when it starts. If it raises, all work fails with that.
          maxtasksperchild: calls of `apply`, or chunks, after which a worker is replaced by a new process.
          context: ignored with a warning: workers are started by shoal.
          ray_address: None: the session that there is, or a new one.
          ray_remote_args: options of the workers' actors, such as num_cpus or resources.
        """
        if processes is not None and processes < 1:
            raise ValueError(f"processes must be at least 1, not {processes}")
        if maxtasksperchild is not None and maxtasksperchild < 1:
            raise ValueError(f"maxtasksperchild must be at least 1 or None, not {maxtasksperchild}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        if ray_address is not None:
            raise ValueError("ray_address is not supported in this version: call shoal.init first and leave it out")
        if context is not None:
            warnings.warn("Pool ignores context: its workers are processes of shoal", stacklevel=2)
        worker = remote(PoolWorker).options(**{"num_cpus": 0, **(ray_remote_args or {})})
        arguments = tuple(initargs or ())

        def hire() -> ActorHandle:
            handle: ActorHandle = worker.remote(initializer, arguments)
            return handle

        self._workers = Workers(processes or _cpus(), hire, chunks_each=maxtasksperchild)
        self._state = "RUN"
        self._windows: weakref.WeakSet[_Window] = weakref.WeakSet()

    # ---- one call

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """``func(*args, **kwds)`` in a worker; waits for the result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """As `apply`, at once.

        Args:
          callback: called with the result; `error_callback` with the exception instead.
        """
        self._check_running()
        result = AsyncResult(1, single=True, callback=callback, error_callback=error_callback)
        self._workers.add([Chunk("apply", func, [(tuple(args or ()), dict(kwds or {}))], result, 0)])
        return result

    # ---- many calls

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """``[func(item) for item in iterable]``, in the workers. The first exception is raised when all has ended."""
        result: list[Any] = self.map_async(func, iterable, chunksize).get()
        return result

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """As `map`, at once.

        Args:
          chunksize: items that travel together; by default such that each worker gets four chunks.
        """
        return self._map_async("map", func, iterable, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """``[func(*item) for item in iterable]``, in the workers."""
        result: list[Any] = self.starmap_async(func, iterable, chunksize).get()
        return result

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """As `starmap`, at once."""
        return self._map_async("starmap", func, iterable, chunksize, callback, error_callback)

    def imap(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1) -> ImapIterator:
        """An iterator over the results of ``func(item)``, in order, as they come. `iterable` may be endless."""
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> ImapIterator:
        """As `imap`, each result as soon as it is there."""
        return self._imap(func, iterable, chunksize, ordered=False)

    # ---- ends

    def close(self) -> None:
        """Take no more work. The workers end when all work is done."""
        if self._state == "RUN":
            self._state = "CLOSE"
        self._workers.close()
        self._lift_windows()

    def terminate(self) -> None:
        """End the workers at once, with the work that they have."""
        self._state = "TERMINATE"
        self._workers.terminate(terminated())
        self._lift_windows()

    def join(self) -> None:
        """Wait until all work is done and all callbacks have returned.

        Raises:
          ValueError: neither `close` nor `terminate` was called.
        """
        if self._state == "RUN":
            raise ValueError("the pool is still running: call close() or terminate() before join()")
        self._workers.wait()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()

    def __repr__(self) -> str:
        return f"Pool(processes={self._workers.count}, state={self._state})"

    # ---- inside

    def _check_running(self) -> None:
        if self._state != "RUN":
            raise ValueError(f"the pool takes no work: it was {self._state.lower()}d; make another")

    def _map_async(
        self,
        method: str,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> AsyncResult:
        self._check_running()
        items = list(iterable)
        size = _chunk_size(chunksize) or max(1, -(-len(items) // (_CHUNKS_EACH * self._workers.count)))
        pieces = list(_pieces(items, size))
        result = AsyncResult(len(pieces), single=False, callback=callback, error_callback=error_callback)
        shared = put(func) if len(pieces) > 1 else func
        self._workers.add(Chunk(method, shared, piece, result, number) for number, piece in enumerate(pieces))
        return result

    def _imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None, *, ordered: bool
    ) -> ImapIterator:
        self._check_running()
        size = _chunk_size(chunksize) or 1
        window = _Window(_WINDOW_EACH * self._workers.count)
        results = ImapIterator(ordered=ordered, taken=window.widen)
        weakref.finalize(results, window.lift).atexit = False
        self._windows.add(window)
        self._workers.begin()
        arguments = (self._workers, weakref.ref(results), window, put(func), iter(iterable), size)
        threading.Thread(target=_feed, args=arguments, name="shoal-pool-input", daemon=True).start()
        return results

    def _lift_windows(self) -> None:
        for window in list(self._windows):
            window.lift()


class _Window:
    """How many more chunks of an `imap` may be begun: a semaphore that can be opened for good."""

    def __init__(self, size: int) -> None:
        self._semaphore = threading.Semaphore(size)
        self._lifted = False

    def wait(self) -> None:
        """Until there is room. Ends with the reader: it reads on, drops its iterator, or ends the pool."""
        if not self._lifted:
            self._semaphore.acquire()

    def widen(self) -> None:
        self._semaphore.release()

    def lift(self) -> None:
        self._lifted = True
        self._semaphore.release()


def _feed(
    workers: Workers,
    reader: weakref.ref[ImapIterator],
    window: _Window,
    func: Any,
    items: Iterator[Any],
    size: int,
) -> None:
    """Read the input of an `imap` and add it as chunks, until its end or until nobody reads the results.

    In a thread of its own, because the input is user code: it may wait, even for results of this very `imap`.
    """
    number = 0
    try:
        while True:
            window.wait()
            piece, end = _next_piece(items, size)
            results = reader()
            if results is None:
                return
            if workers.ended:
                end = terminated()
            elif piece:
                workers.add([Chunk("map", func, piece, results, number)])
                number += 1
            if isinstance(end, StopIteration):
                results.input_ended(number)
            elif end is not None:
                results.failed(number, end)
                results.input_ended(number + 1)
            if end is not None:
                return
            del results  # while this thread waits, only its reader and the work under way keep it
    finally:
        workers.finish()


def _next_piece(items: Iterator[Any], size: int) -> tuple[list[Any], Exception | None]:
    """Up to `size` items, and why there will be no more: StopIteration, or what the input has raised."""
    piece: list[Any] = []
    try:
        while len(piece) < size:
            piece.append(next(items))
    except Exception as error:  # noqa: BLE001  raised where the results are read, as multiprocessing does
        return piece, error
    return piece, None


def _pieces(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _chunk_size(chunksize: int | None) -> int | None:
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"chunksize must be at least 1, not {chunksize}")
    return chunksize


def _cpus() -> int:
    """CPUs of the session, which is started if there is none."""
    if not is_initialized():
        init()
    return max(1, int(cluster_resources().get("CPU", 1)))

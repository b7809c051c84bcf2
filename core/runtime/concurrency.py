"""Actors that run several calls at once: in threads, or as coroutines on one event loop.

    serial       one call at a time in the main thread, in order (execution.py; no lanes)
    threads      max_concurrency > 1: a pool of threads; no order
    coroutines   any method is ``async def``: an event loop in a thread of its own, at most max_concurrency (1000)
                 calls at once; plain methods run on the loop too and hold it up while they do

A concurrency group is a lane of its own, with its own bound; calls that name no group take the default lane.

Not here: what a call does (execution.py). The two kinds of lanes differ only in how they run it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")

#: Calls at once of an actor with coroutines, unless told otherwise. Ray's.
ASYNC_CONCURRENCY = 1000
#: The lane of calls that name no group.
DEFAULT = ""


class Call(Protocol):
    """A call to be run: by `run` in a thread, by `run_async` on an event loop; or `cancelled` before it began."""

    @property
    def key(self) -> bytes: ...
    def run(self) -> None: ...
    async def run_async(self) -> None: ...
    def cancelled(self) -> None: ...


class Lanes(Protocol):
    """Where the calls of a concurrent actor run."""

    def construct(self, make: Callable[[], T]) -> T:
        """Run the actor's constructor where its methods will run; raises what it raises."""
        ...

    def start(self, group: str, call: Call) -> None:
        """Begin a call, or queue it in its lane. KeyError: there is no such group."""
        ...

    def cancel(self, key: bytes) -> None:
        """Cancel the call of that key, if it is queued, or is a coroutine."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a call is under way or queued."""
        ...

    def close(self) -> None:
        """The actor is dead where its process is not: coroutines are cancelled, what is queued never begins, threads
        end with what they do now. Returns at once; no other call may follow.
        """
        ...


def is_async(cls: type) -> bool:
    """Whether a class makes an actor with coroutines: any of its methods is one."""
    return any(
        inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        for _, member in inspect.getmembers(cls, inspect.isfunction)
    )


def lanes_for(cls: type, max_concurrency: int, groups: Mapping[str, int]) -> Lanes | None:
    """The lanes that an actor of this class needs; None if it runs its calls one by one.

    Args:
      max_concurrency: bound of the default lane; 0: not given.
      groups: name -> bound.
    """
    if not lanes_wanted(cls, max_concurrency, groups):
        return None
    if is_async(cls):
        return AsyncLanes(max_concurrency or ASYNC_CONCURRENCY, groups)
    return ThreadLanes(max_concurrency or 1, groups)


def lanes_wanted(cls: type, max_concurrency: int, groups: Mapping[str, int]) -> bool:
    """Whether an actor of this class runs several calls at once."""
    return is_async(cls) or max_concurrency > 1 or bool(groups)


class ThreadLanes:
    """Each lane is a pool of threads."""

    def __init__(self, max_concurrency: int, groups: Mapping[str, int]) -> None:
        self._pools = {
            name: ThreadPoolExecutor(bound, thread_name_prefix=f"shoal-{name or 'call'}")
            for name, bound in {DEFAULT: max_concurrency, **groups}.items()
        }
        self._count = _Count()
        self._queued: dict[bytes, tuple[Future[None], Call]] = {}

    def construct(self, make: Callable[[], T]) -> T:
        return make()

    def start(self, group: str, call: Call) -> None:
        pool = self._pools[group]
        self._count.up()

        def run() -> None:
            self._queued.pop(call.key, None)
            try:
                call.run()
            finally:
                self._count.down()

        future = pool.submit(run)
        self._queued[call.key] = (future, call)
        if future.running() or future.done():
            self._queued.pop(call.key, None)

    def cancel(self, key: bytes) -> None:
        future, call = self._queued.pop(key, (None, None))
        if future is not None and call is not None and future.cancel():
            self._count.down()
            call.cancelled()

    @property
    def busy(self) -> bool:
        return self._count.value > 0

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


class AsyncLanes:
    """One event loop; each lane is a semaphore."""

    def __init__(self, max_concurrency: int, groups: Mapping[str, int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._gates = {name: asyncio.Semaphore(bound) for name, bound in {DEFAULT: max_concurrency, **groups}.items()}
        self._count = _Count()
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._ending = False
        threading.Thread(target=self._serve, name="shoal-asyncio", daemon=True).start()

    def _serve(self) -> None:
        # User code shares the loop: what it lets escape from a task of its own, or its stop(), must not end the calls.
        while not self._ending:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                traceback.print_exc()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def construct(self, make: Callable[[], T]) -> T:
        async def on_loop() -> T:
            return make()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result()

    def start(self, group: str, call: Call) -> None:
        gate = self._gates[group]
        self._count.up()
        self._loop.call_soon_threadsafe(self._begin, gate, call)

    def cancel(self, key: bytes) -> None:
        self._loop.call_soon_threadsafe(self._cancel, key)

    def _cancel(self, key: bytes) -> None:
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()

    def _begin(self, gate: asyncio.Semaphore, call: Call) -> None:
        # The loop keeps only weak references to tasks.
        task = self._tasks[call.key] = self._loop.create_task(self._through(gate, call))

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[call.key]
            self._count.down()
            if task.cancelled():  # at the gate: a call that has begun takes its cancellation as its result
                call.cancelled()

        task.add_done_callback(ended)

    async def _through(self, gate: asyncio.Semaphore, call: Call) -> None:
        async with gate:
            await call.run_async()

    @property
    def busy(self) -> bool:
        return self._count.value > 0

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ending = True
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_soon(self._loop.stop)  # after the tasks have had their cancellation


class _Count:
    """A number that several threads change."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def up(self) -> None:
        with self._lock:
            self.value += 1

    def down(self) -> None:
        with self._lock:
            self.value -= 1

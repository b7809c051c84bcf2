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
from collections import deque
from collections.abc import Callable, Container, Mapping
from functools import partial
from queue import SimpleQueue
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
        """Begin a call, or queue it in its lane. One thread at a time. KeyError: there is no such group."""
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
    """Each lane is a queue with threads behind it, which are started when calls have need of them.

    Not a ThreadPoolExecutor: its future and its locks cost 4 us a call.
    """

    def __init__(self, max_concurrency: int, groups: Mapping[str, int]) -> None:
        self._lanes = {name: _ThreadLane(name, bound) for name, bound in {DEFAULT: max_concurrency, **groups}.items()}
        #: Calls that have not begun, by key. Who takes a call out, a thread or `cancel`, has it.
        self._queued: dict[bytes, Call] = {}

    def construct(self, make: Callable[[], T]) -> T:
        return make()

    def start(self, group: str, call: Call) -> None:
        lane = self._lanes[group]
        lane.busy.up()
        self._queued[call.key] = call
        lane.calls.put(call)
        if lane.threads < lane.bound and lane.busy.value > lane.threads:
            lane.threads += 1
            name = f"shoal-{lane.name or 'call'}_{lane.threads - 1}"
            threading.Thread(target=self._serve, args=(lane,), name=name, daemon=True).start()

    def _serve(self, lane: _ThreadLane) -> None:
        while (call := lane.calls.get()) is not None:
            try:
                if self._queued.pop(call.key, None) is not None:
                    call.run()
            finally:
                lane.busy.down()
            del call  # its arguments go before the next one comes

    def cancel(self, key: bytes) -> None:
        call = self._queued.pop(key, None)
        if call is not None:
            call.cancelled()

    @property
    def busy(self) -> bool:
        return any(lane.busy.value for lane in self._lanes.values())

    def close(self) -> None:
        self._queued.clear()
        for lane in self._lanes.values():
            for _ in range(lane.threads):
                lane.calls.put(None)


class _ThreadLane:
    """A queue, and how many threads serve it."""

    def __init__(self, name: str, bound: int) -> None:
        self.name = name
        self.bound = bound
        self.calls: SimpleQueue[Call | None] = SimpleQueue()
        self.threads = 0
        #: Calls that no thread is done with.
        self.busy = _Count()


class AsyncLanes:
    """One event loop; each lane has room for so many coroutines, and a queue.

    Calls that arrive together cross to the loop's thread by one entry in its queue; each such entry costs a write to a
    pipe, 3 us. Their room is counted in plain numbers: semaphores would cost 1.5 us a call.
    """

    def __init__(self, max_concurrency: int, groups: Mapping[str, int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._lanes = {name: _AsyncLane(bound) for name, bound in {DEFAULT: max_concurrency, **groups}.items()}
        self._arrived: deque[tuple[_AsyncLane, Call]] = deque()
        self._woken = False
        self._started = 0  # changed by who starts calls
        self._ended = 0  # changed by the loop's thread
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
        lane = self._lanes[group]
        self._started += 1
        self._arrived.append((lane, call))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._begin_arrived)

    def cancel(self, key: bytes) -> None:
        self._loop.call_soon_threadsafe(self._cancel, key)

    # ---- in the loop's thread

    def _begin_arrived(self) -> None:
        # First: who finds it set has put the call there before we look; who does not wakes us again.
        self._woken = False
        while self._arrived:
            lane, call = self._arrived.popleft()
            if lane.room:
                lane.room -= 1
                self._begin(lane, call)
            else:
                lane.queued[call.key] = call

    def _begin(self, lane: _AsyncLane, call: Call) -> None:
        # The loop keeps only weak references to tasks.
        task = self._tasks[call.key] = self._loop.create_task(call.run_async())
        task.add_done_callback(partial(self._end_of, lane, call))

    def _end_of(self, lane: _AsyncLane, call: Call, task: asyncio.Task[None]) -> None:
        if self._tasks.get(call.key) is task:  # else it is being tried again already
            del self._tasks[call.key]
        if task.cancelled():  # before its first step: a call that has begun takes its cancellation as its result
            call.cancelled()
        self._ended += 1
        if lane.queued:
            self._begin(lane, lane.queued.pop(next(iter(lane.queued))))
        else:
            lane.room += 1

    def _cancel(self, key: bytes) -> None:
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()
        else:
            self._drop_queued({key})

    def _drop_queued(self, keys: Container[bytes]) -> None:
        for lane in self._lanes.values():
            for key in [key for key in lane.queued if key in keys]:
                lane.queued.pop(key).cancelled()
                self._ended += 1

    @property
    def busy(self) -> bool:
        return self._started > self._ended

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ending = True
        self._drop_queued({key for lane in self._lanes.values() for key in lane.queued})
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_soon(self._loop.stop)  # after the tasks have had their cancellation


class _AsyncLane:
    """How many more calls may begin, and those that wait for it, in order."""

    __slots__ = ("queued", "room")

    def __init__(self, bound: int) -> None:
        self.room = bound
        self.queued: dict[bytes, Call] = {}


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

"""Actors that run several calls at once: in threads, or as coroutines on one event loop.

    serial       one call at a time in the main thread, in order (execution.py; no lanes)
    threads      max_concurrency > 1: a pool of threads; no order
    coroutines   any method is ``async def``: an event loop in a thread of its own, at most max_concurrency (1000)
                 calls at once; plain methods run on the loop too and hold it up while they do

A concurrency group is a lane of its own, with its own bound; calls that name no group take the default lane.

Not here: what a call does (execution.py), and the coroutines (async_lanes.py). The two kinds of lanes differ only in
how they run it.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Protocol, TypeVar

from ..transport.loop import Loop

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

    @property
    def drives(self) -> bool:
        """They drive the process's loop: nobody else needs to."""
        ...

    def stop_driving(self) -> None:
        """Leave that to others from now on."""
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


def lanes_for(
    cls: type,
    max_concurrency: int,
    groups: Mapping[str, int],
    driven: Loop | None = None,
    on_fault: Callable[[BaseException], None] = lambda error: None,
) -> Lanes | None:
    """The lanes that an actor of this class needs; None if it runs its calls one by one.

    Args:
      max_concurrency: bound of the default lane; 0: not given.
      groups: name -> bound.
      driven: the process's loop, which an event loop may drive; None: the process has none.
      on_fault: told what has come out of driving it, a fault of ours; the process must end.
    """
    if not lanes_wanted(cls, max_concurrency, groups):
        return None
    if is_async(cls):
        # asyncio and what it brings are an eighth of what `import shoal` would cost; workers have it from the zygote.
        from .async_lanes import AsyncLanes

        return AsyncLanes(max_concurrency or ASYNC_CONCURRENCY, groups, driven, on_fault)
    return ThreadLanes(max_concurrency or 1, groups)


def lanes_wanted(cls: type, max_concurrency: int, groups: Mapping[str, int]) -> bool:
    """Whether an actor of this class runs several calls at once."""
    return is_async(cls) or max_concurrency > 1 or bool(groups)


class ThreadLanes:
    """Each lane is a queue with threads behind it, which are started when calls have need of them.

    Not a ThreadPoolExecutor: its future and its locks cost 4 us a call.
    """

    drives = False

    def stop_driving(self) -> None:
        pass

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

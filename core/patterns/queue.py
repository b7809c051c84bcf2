"""Queue: a first-in, first-out queue that processes share. It lives in an actor of its own.

    put(item)  --> _QueueActor.put   waits there, as a coroutine, until there is room
    get()      --> _QueueActor.get   waits there until there is an item

A caller that waits has one call parked in the actor: nothing polls, a task that waits gives back its CPU, and an item
wakes one waiter, not all. Who waits longest is served first, unless a caller that comes at that moment is quicker. The
actor answers with (done, value) and not with an exception: `Full` and `Empty` are then raised where the caller stands,
not sent as a failure with a traceback of the actor.

A time-out is counted in the actor, so that no item is ever taken out for a caller that has gone. It is therefore as
punctual as the actor: while the actor is being created, or loads a huge item, the caller waits longer.

Invariant: a batch is put or taken whole or not at all.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

from ..api import get, kill, remote, wait

#: Calls that may be parked in the actor. When all are, the call that would wake them cannot get in either: so many more
#: than the 1,000 that actors have unless told otherwise.
_MOST_WAITING = 1_000_000


class Empty(queue.Empty):
    """Nothing, or not enough, was in the queue; after the time-out, if there was one."""


class Full(queue.Full):
    """There was no room in the queue; after the time-out, if there was one."""


class Queue:
    """A queue for tasks, actors and drivers. Pass it to them like any value: every copy is the same queue.

    Its actor, and what is in it, live as long as a copy does, or until `shutdown`.

    Example:
      >>> tasks = Queue(maxsize=10)
      >>> tasks.put("first")
      >>> tasks.get(timeout=1)
      'first'
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        """
        Args:
          maxsize: the most items it holds; 0: any number.
          actor_options: options of its actor, such as a name or resources. It takes no CPU unless told to.
        """
        if not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be an integer, not {type(maxsize).__name__} {maxsize!r}")
        self.maxsize = maxsize
        options = {"num_cpus": 0, "max_concurrency": _MOST_WAITING, **(actor_options or {})}
        self.actor = remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def __repr__(self) -> str:
        return f"Queue(maxsize={self.maxsize}, actor={self.actor!r})"

    def size(self) -> int:
        """How many items are in it now."""
        return int(get(self._living().qsize.remote()))

    def qsize(self) -> int:
        """As `size`."""
        return self.size()

    def empty(self) -> bool:
        """Whether nothing is in it now."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether it has no room now."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002  Ray's signature
        """Add an item at the end.

        Args:
          item: any value that can be pickled; a ref arrives as its value.
          block: wait for room.
          timeout: seconds to wait; None: as long as it takes.

        Raises:
          Full: there was no room.
          ValueError: a negative time-out.
        """
        _raise_if_full(get(self._living().put.remote(item, _patience(block, timeout))))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002  Ray's signature
        """As `put`, for coroutines."""
        _raise_if_full(await self._living().put.remote(item, _patience(block, timeout)))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002  Ray's signature
        """Take the first item.

        Args:
          block: wait for one.
          timeout: seconds to wait; None: as long as it takes.

        Raises:
          Empty: there was none.
          ValueError: a negative time-out.
        """
        return _value_or_empty(get(self._living().get.remote(_patience(block, timeout))))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002  Ray's signature
        """As `get`, for coroutines."""
        return _value_or_empty(await self._living().get.remote(_patience(block, timeout)))

    def put_nowait(self, item: Any) -> None:
        """``put(item, block=False)``."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add several items in order, in one call; all of them or none.

        Raises:
          Full: there was not enough room.
        """
        batch = list(items)
        done, size = get(self._living().put_batch.remote(batch))
        if not done:
            raise Full(f"no room for {len(batch)} items: the queue holds {size} of {self.maxsize}")

    def get_nowait(self) -> Any:
        """``get(block=False)``."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take so many items in order, in one call; all of them or none.

        Raises:
          Empty: there were fewer.
        """
        if not isinstance(num_items, int):
            raise TypeError(f"num_items must be an integer, not {type(num_items).__name__} {num_items!r}")
        if num_items < 0:
            raise ValueError(f"num_items must not be negative, it is {num_items}")
        done, value = get(self._living().get_batch.remote(num_items))
        if not done:
            raise Empty(f"no {num_items} items to take: the queue holds {value}")
        return list(value)

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:  # noqa: FBT001, FBT002  Ray's signature
        """End the queue's actor. What is in it is lost; who waits in `put` or `get` gets an ActorDiedError.

        Args:
          force: at once. Otherwise calls that this process has made before, and that need not wait, are carried out.
          grace_period_s: how long they may take, in seconds.
        """
        if self.actor is None:
            return
        if not force:
            wait([self.actor.settle.remote()], timeout=grace_period_s)
        kill(self.actor)
        self.actor = None

    def _living(self) -> Any:
        if self.actor is None:
            raise RuntimeError("the queue has been shut down; make another")
        return self.actor


class _QueueActor:
    """The queue itself. Everything happens on one event loop, so what does not await is atomic."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)
        self._putting = self._getting = 0  # calls that wait

    def qsize(self) -> int:
        return self._queue.qsize()

    async def put(self, item: Any, patience_s: float | None) -> bool:
        """Whether the item was put; waits for room so long."""
        try:
            # Without a wait where none is needed: wait_for costs a task and a timer.
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            if patience_s == 0:
                return False
            self._putting += 1
            try:
                await asyncio.wait_for(self._queue.put(item), patience_s)
            except asyncio.TimeoutError:
                return False
            finally:
                self._putting -= 1
        return True

    async def get(self, patience_s: float | None) -> tuple[bool, Any]:
        """(True, the first item), or (False, None) if none came for so long."""
        try:
            return True, self._queue.get_nowait()
        except asyncio.QueueEmpty:
            if patience_s == 0:
                return False, None
        self._getting += 1
        try:
            return True, await asyncio.wait_for(self._queue.get(), patience_s)
        except asyncio.TimeoutError:
            return False, None
        finally:
            self._getting -= 1

    async def settle(self) -> None:
        """Return when no call waits that need not: those that were woken have gone on to their end."""
        while (self._getting and not self._queue.empty()) or (  # noqa: ASYNC110  a few turns, not a wait for an event
            self._putting and not self._queue.full()
        ):
            await asyncio.sleep(0)

    def put_batch(self, items: list[Any]) -> tuple[bool, int]:
        """(whether there was room for all, items in the queue)."""
        size = self._queue.qsize()
        if 0 < self._maxsize < size + len(items):
            return False, size
        for item in items:
            self._queue.put_nowait(item)
        return True, self._queue.qsize()

    def get_batch(self, count: int) -> tuple[bool, Any]:
        """(True, the items), or (False, how many there are)."""
        size = self._queue.qsize()
        if size < count:
            return False, size
        return True, [self._queue.get_nowait() for _ in range(count)]


def _patience(block: bool, timeout: float | None) -> float | None:  # noqa: FBT001  of put and get
    """Seconds that the actor shall wait; None: for ever."""
    if not block:
        return 0.0
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must not be negative, it is {timeout}")
    return timeout


def _raise_if_full(done: bool) -> None:  # noqa: FBT001  the actor's answer
    if not done:
        raise Full("the queue is full")


def _value_or_empty(answer: tuple[bool, Any]) -> Any:
    done, value = answer
    if not done:
        raise Empty("the queue is empty")
    return value

"""The lanes of an actor with coroutines: one event loop in a thread of its own (concurrency.py states the rules).

In a worker that thread drives the process's loop while it has nothing to do (driving_selector.py), and the main thread
only waits for the end. Where that cannot be, the main thread drives, and each call crosses between the two.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import deque
from collections.abc import Callable, Container, Mapping
from functools import partial

from ..transport.loop import Loop
from .concurrency import DEFAULT, Call, T
from .driving_selector import DrivingSelector, can_drive


class AsyncLanes:
    """One event loop; each lane has room for so many coroutines, and a queue.

    Calls that arrive together in another thread cross to the loop's by one entry in its queue; each such entry costs a
    write to a pipe, 3 us. Their room is counted in plain numbers: semaphores would cost 1.5 us a call.

    Args:
      driven: The process's loop, to be driven by this one; None: somebody else does.
      on_fault: Told, with `driven`, what has ended the thread: the process must end.
    """

    def __init__(
        self,
        max_concurrency: int,
        groups: Mapping[str, int],
        driven: Loop | None = None,
        on_fault: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._arrived: deque[tuple[_AsyncLane, Call]] = deque()
        self._selector: DrivingSelector | None = None
        if driven is not None and can_drive(driven):
            self._selector = DrivingSelector(
                driven, calls=self._arrived, begin=self._begin_arrived, on_fault=on_fault
            )
        self._loop = asyncio.SelectorEventLoop(self._selector) if self._selector else asyncio.new_event_loop()
        self._thread = 0  # its ident
        self._lanes = {name: _AsyncLane(bound) for name, bound in {DEFAULT: max_concurrency, **groups}.items()}
        self._woken = False
        self._started = 0  # changed by who starts calls
        self._ended = 0  # changed by the loop's thread
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._ending = False
        threading.Thread(target=self._serve, name="shoal-asyncio", daemon=True).start()

    def _serve(self) -> None:
        # User code shares the loop: what it lets escape from a task of its own, or its stop(), must not end the calls.
        self._thread = threading.get_ident()
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
        # Its own thread begins them before the next turn; it drives, or waits for something in the middle of a turn.
        if not self._woken and threading.get_ident() != self._thread:
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

    @property
    def drives(self) -> bool:
        return self._selector is not None and self._selector.drives

    def stop_driving(self) -> None:
        if self._selector is not None:
            self._selector.stop()
            self._loop.call_soon_threadsafe(lambda: None)

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

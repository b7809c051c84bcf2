"""The worker's side of a generator: its items go to the owner one by one, in order, while it runs.

    user code yields --emit--> serialised, kept --> the refs inside registered --> TaskYielded, in order --> TaskDone

The thread, or coroutine, that runs the generator waits when it is `backpressure` items ahead of the consumer. When the
consumer has gone, the generator goes on to its end, but nothing more is sent. When it is cancelled it ends at its next
yield, if nothing has ended it before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..protocol import messages as m
from ..protocol.specs import Value
from ..refs import ObjectRef
from ..serialization import values
from ..transport.loop import Loop
from .holdings import Holdings


class YieldedItems:
    """The items of one run of a generator."""

    def __init__(
        self,
        loop: Loop,
        holdings: Holdings,
        *,
        owner: bytes,
        task_id: bytes,
        backpressure: int,
        on_wait: Callable[[], None],
    ) -> None:
        """
        Args:
          owner: whose objects they are.
          backpressure: how many may be ahead of the consumer; not positive: any number.
          on_wait: called in the loop's driver when the generator has to wait for its consumer.
        """
        self.owner = owner
        self._loop = loop
        self._holdings = holdings
        self._task_id = task_id
        self._backpressure = backpressure
        self._on_wait = on_wait
        self._emitted = 0
        self._taken = 0
        self._dropped = False
        self._is_cancelled = False
        #: Wakes the coroutine that waits for its consumer.
        self._wake: Callable[[], object] | None = None
        self._handed = 0
        #: Handed over, and waiting for those before them.
        self._ready: dict[int, tuple[Value, list[bytes]]] = {}
        self._sent = 0
        self._then: Callable[[], None] | None = None

    # ---- in the thread that runs the generator

    async def emit_all(self, generator: Any, *, on_event_loop: bool) -> None:
        """Run a generator to its end.

        Raises:
          ValueError: it is none.
        """
        if inspect.isasyncgen(generator):
            try:
                async for item in generator:
                    self._emit(item)
                    await self._room()
            finally:
                await generator.aclose()  # its own `finally` runs here, and not wherever Python collects it
        elif hasattr(generator, "__next__"):
            try:
                for item in generator:
                    self._emit(item)
                    if on_event_loop:
                        await self._room()
                    elif not self._has_room():
                        self._loop.post(lambda _: self._on_wait(), None)
                        self._loop.drive_until(self._has_room)
                    self._check()
            finally:
                if inspect.isgenerator(generator):
                    generator.close()
        else:
            raise ValueError(f"the task returned one {type(generator).__name__}, but its items were to be streamed")

    def _emit(self, item: Any) -> None:
        if self._dropped:
            return
        serialized = values.serialize(item)
        value = self._holdings.keep(serialized, self.owner)
        self._emitted += 1
        self._loop.submit(self._hand_over, (value, serialized.refs))

    def _has_room(self) -> bool:
        if self._dropped or self._is_cancelled or self._backpressure <= 0:
            return True
        return self._emitted - self._taken < self._backpressure

    async def _room(self) -> None:
        """Wait for the consumer without a thread: a thousand generators of one actor may wait at once."""
        if not self._has_room():
            import asyncio  # `import shoal` need not pay for it

            loop, woken = asyncio.get_running_loop(), asyncio.Event()
            self._wake = lambda: loop.call_soon_threadsafe(woken.set)
            while not self._has_room():  # again, too: the news may have come before there was somebody to wake
                await woken.wait()
                woken.clear()
            self._wake = None
        self._check()

    def _check(self) -> None:
        if self._is_cancelled:
            from asyncio import CancelledError  # `import shoal` need not pay for it

            raise CancelledError

    # ---- in the loop's driver

    def taken(self, count: int) -> None:
        """What the owner says of the consumer (`ItemsTaken`)."""
        self._taken = max(self._taken, count)
        self._dropped = self._dropped or count < 0
        self._wake_up()

    def cancel(self) -> None:
        """It is to end."""
        self._is_cancelled = True
        self._wake_up()

    def _wake_up(self) -> None:
        wake = self._wake
        if wake is not None:
            wake()

    def close(self, then: Callable[[], None]) -> None:
        """The generator has ended: call `then` when all items have been sent."""
        self._then = then
        self._send_ready()

    def _hand_over(self, entry: tuple[Value, list[ObjectRef]]) -> None:
        value, _refs_alive_until_registered = entry
        index = self._handed
        self._handed += 1

        def confirmed(mine: list[bytes]) -> None:
            self._ready[index] = (value, mine)
            self._send_ready()

        self._holdings.hand_over(self.owner, value.contained, confirmed)

    def _send_ready(self) -> None:
        while self._sent in self._ready:
            value, mine = self._ready.pop(self._sent)
            if self._holdings.is_dead(self.owner):
                self._holdings.drop_results([value])
            else:
                buffers: list[Any] = []
                wire, number = value.wire(buffers), self._sent
                self._loop.send(self.owner, m.TaskYielded(self._task_id, number, wire, value.contained, mine, buffers))
            self._sent += 1
        if self._then is not None and self._sent == self._handed:
            then, self._then = self._then, None
            then()

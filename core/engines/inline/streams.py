"""The items of a generator in an inline session (`generators.ItemStream`): all there when the task has ended.

The task runs before ``.remote()`` returns, as a rule, so nothing is gained by telling of the items one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ...generators import taken_when
from ...refs import ObjectRef

#: (refs, how many, time-out in seconds) -> (ready, not ready)
WaitForRefs = Callable[[Sequence[ObjectRef], int, "float | None"], "tuple[list[ObjectRef], list[ObjectRef]]"]


class InlineStream:
    """The items of one generator, for one consumer."""

    def __init__(
        self, completion: ObjectRef, *, wait: WaitForRefs, settled: Callable[[ObjectRef], Future[Any]]
    ) -> None:
        """
        Args:
          completion: ready when the task has ended.
          settled: a future that is done when a ref is ready.
        """
        self.completion = completion
        self._wait = wait
        self._settled = settled
        self._items: deque[ObjectRef] | None = None
        self._closed = False

    def end(self, items: Sequence[ObjectRef]) -> None:
        """The task has ended, and these are its items."""
        self._items = deque(() if self._closed else items)

    def take(self, timeout_s: float | None) -> ObjectRef | None:
        if not self._wait([self.completion], 1, timeout_s)[0]:
            return None
        assert self._items is not None, "it has ended"
        if not self._items:
            raise StopIteration
        return self._items.popleft()

    def peek(self) -> ObjectRef:
        return self._items[0] if self._items else self.completion

    def is_ready(self) -> bool:
        return bool(self._wait([self.completion], 1, 0.0)[0])

    async def take_async(self) -> ObjectRef:
        return await taken_when(self._settled(self.peek()), self.take)

    def is_finished(self) -> bool:
        return self._items is not None and not self._items

    def close(self) -> None:
        self._closed = True
        if self._items is not None:
            self._items.clear()

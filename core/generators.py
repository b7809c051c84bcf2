"""What ``.remote()`` of a generator returns: its items as refs, one by one while it runs, or all when it has ended.

    for ref in numbers.remote(10):        async for ref in ...:        refs, _ = wait([generator])
        print(shoal.get(ref))

`ObjectRefGenerator` is the streaming kind. Its engine gives it an `ItemStream`; this file is what users see of it.
`DynamicObjectRefGenerator` is the value of the one ref that ``num_returns="dynamic"`` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NoReturn, Protocol

from .refs import ObjectRef


class ItemStream(Protocol):
    """The items of one generator, for one consumer."""

    #: Resolves when the task has ended.
    completion: ObjectRef

    def take(self, timeout_s: float | None) -> ObjectRef | None:
        """The next item when it is ready; None when it is not in time. StopIteration: there is none."""

    def peek(self) -> ObjectRef:
        """A ref that is ready when the next item is, or the end."""

    def is_ready(self) -> bool:
        """Whether `take` would return at once."""

    async def take_async(self) -> ObjectRef:
        """As `take` without a time-out, for coroutines. StopAsyncIteration: there is none."""

    def is_finished(self) -> bool:
        """Whether all items have been taken."""

    def close(self) -> None:
        """Nobody will take any more. Any thread, at any moment."""


async def taken_when(ready: Future[Any], take: Callable[[float], ObjectRef | None]) -> ObjectRef:
    """What `take` has when `ready` is done.

    Raises:
      StopAsyncIteration: nothing, it is the end.
    """
    import asyncio  # only coroutines come here; `import shoal` need not pay for it

    await asyncio.wrap_future(ready)
    try:
        ref = take(0.0)
    except StopIteration:
        raise StopAsyncIteration from None
    assert ref is not None, "it is ready"
    return ref


class ObjectRefGenerator:
    """Iterates over the refs of what a generator yields, while it runs. Also asynchronously.

    An exception in the generator comes as a last ref, which raises it at ``get``. When the `ObjectRefGenerator` goes,
    the task runs on, but its items that were not taken are freed. Not for several threads at once.
    """

    def __init__(self, stream: ItemStream) -> None:
        self._stream = stream

    def __iter__(self) -> ObjectRefGenerator:
        return self

    def __next__(self) -> ObjectRef:
        ref = self._stream.take(None)
        assert ref is not None, "without a time-out it waits until there is one"
        return ref

    def __aiter__(self) -> ObjectRefGenerator:
        return self

    async def __anext__(self) -> ObjectRef:
        return await self._stream.take_async()

    def completed(self) -> ObjectRef:
        """A ref that is ready when the task has ended. Its value is None, also if the generator has raised: that is an
        item. It fails when the task could not come to its end.
        """
        return self._stream.completion

    def next_ready(self) -> bool:
        """Whether the next item, or the end, can be had without waiting."""
        return self._stream.is_ready()

    def is_finished(self) -> bool:
        """Whether all items have been taken."""
        return self._stream.is_finished()

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef:
        """As `__next__`; the nil ref when there is nothing in time. Ray's."""
        ref = self._stream.take(timeout_s)
        return ObjectRef(b"\xff" * 28) if ref is None else ref

    def _peek(self) -> ObjectRef:
        """What `wait` and `cancel` know this generator by."""
        return self._stream.peek()

    def __del__(self) -> None:
        self._stream.close()

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._stream.completion.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an ObjectRefGenerator cannot be sent to another process: its items have one consumer")

    def _refuse(self, *_arguments: Any) -> NoReturn:
        raise NotImplementedError("an ObjectRefGenerator is only iterated over: the generator runs elsewhere")

    send = throw = close = asend = athrow = aclose = _refuse


class DynamicObjectRefGenerator:
    """The refs of all that a generator has yielded (``num_returns="dynamic"``). Can be sent; iterates once."""

    def __init__(self, refs: list[ObjectRef]) -> None:
        self._refs = refs

    def __iter__(self) -> Iterator[ObjectRef]:
        while self._refs:
            yield self._refs.pop(0)

    def __len__(self) -> int:
        return len(self._refs)

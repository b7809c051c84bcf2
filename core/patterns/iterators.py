"""Results as they come: `as_completed` of refs that there are, `map_unordered` of calls still to be made.

Both wait for a chunk of results at a time, because a wait costs more than the result of a short task. Within a chunk
the order is that of submission, so `chunk_size=1` gives the order of completion and larger ones are faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from ..api import get, wait
from ..refs import ObjectRef

#: Ray's.
CHUNK_SIZE = 10
BACKPRESSURE_SIZE = 100


class Submittable(Protocol):
    """A remote function, one with options, or a method of an actor."""

    def remote(self, *args: Any, **kwargs: Any) -> Any: ...


def as_completed(
    refs: Sequence[ObjectRef[Any]],
    *,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]:
    """Yield results as they are ready.

    Args:
      refs: each once.
      chunk_size: how many results to wait for at a time.
      yield_obj_refs: yield the refs, not what they stand for. A failed task then raises nothing here.
      timeout: seconds after which a chunk is yielded even if it is smaller. The iterator goes on to the last result.
      fetch_local: as of ``wait``.

    Raises:
      ValueError: a size is less than 1, or `refs` has duplicates.
      TaskError, ...: as ``get`` of a failed ref, when its turn comes.
    """
    _check_chunk_size(chunk_size)
    return _completed(list(refs), chunk_size, timeout, fetch_local=fetch_local, yield_obj_refs=yield_obj_refs)


def map_unordered(
    fn: Submittable,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = BACKPRESSURE_SIZE,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> Iterator[Any]:
    """Call ``fn.remote(item)`` for each item and yield results as they are ready.

    Calls are made as the iterator is read: `items` may be endless.

    Args:
      backpressure_size: how many calls may be under way before it waits for results; None: no bound.
      chunk_size, yield_obj_refs, timeout, fetch_local: as of `as_completed`.

    Raises:
      ValueError: a size is less than 1.
      TaskError, ...: as ``get`` of a failed call, when its turn comes.
    """
    _check_chunk_size(chunk_size)
    if backpressure_size is not None and backpressure_size < 1:
        raise ValueError(f"backpressure_size must be at least 1 or None, not {backpressure_size}")
    bound = float("inf") if backpressure_size is None else backpressure_size

    def results() -> Iterator[Any]:
        refs: list[ObjectRef[Any]] = []
        for item in items:
            refs.append(fn.remote(item))
            if len(refs) >= bound:
                ready, refs = _chunk(refs, chunk_size, timeout, fetch_local=fetch_local)
                yield from _values(ready, yield_obj_refs=yield_obj_refs)
        yield from _completed(refs, chunk_size, timeout, fetch_local=fetch_local, yield_obj_refs=yield_obj_refs)

    return results()


def _completed(
    refs: list[ObjectRef[Any]], chunk_size: int, timeout: float | None, *, fetch_local: bool, yield_obj_refs: bool
) -> Iterator[Any]:
    while refs:
        ready, refs = _chunk(refs, chunk_size, timeout, fetch_local=fetch_local)
        yield from _values(ready, yield_obj_refs=yield_obj_refs)


def _chunk(
    refs: list[ObjectRef[Any]], chunk_size: int, timeout: float | None, *, fetch_local: bool
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    return wait(refs, num_returns=min(chunk_size, len(refs)), timeout=timeout, fetch_local=fetch_local)


def _values(ready: list[ObjectRef[Any]], *, yield_obj_refs: bool) -> Iterator[Any]:
    """One by one: what is ready before a failed one is not lost with it, and no ref outlives its turn."""
    ready.reverse()
    while ready:
        ref = ready.pop()
        yield ref if yield_obj_refs else get(ref)


def _check_chunk_size(chunk_size: int) -> None:
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")

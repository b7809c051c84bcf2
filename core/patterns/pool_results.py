"""What the asynchronous methods of multiprocessing.Pool return: AsyncResult, and the iterators of imap.

They are filled by the pool, in whichever thread hears of a result, and read in any. Nothing here knows how the work is
done: a result is told `succeeded(chunk, values)` or `failed(chunk, error)`, once for each chunk.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

Callback = Callable[[Any], object]


class Result(Protocol):
    """Where the values of a job's chunks go."""

    def succeeded(self, chunk: int, values: list[Any]) -> None: ...
    def failed(self, chunk: int, error: BaseException) -> None: ...


class AsyncResult:
    """The result of `apply_async`, `map_async` or `starmap_async`, perhaps still to come."""

    def __init__(
        self, chunks: int, *, single: bool, callback: Callback | None = None, error_callback: Callback | None = None
    ) -> None:
        """
        Args:
          chunks: number of chunks; the result is there when all have ended.
          single: the result is the only value of the only chunk, not a list.
          callback: called with the result. In a thread of the runtime, so it should return soon.
          error_callback: called with the first error instead.
        """
        self._values: list[list[Any]] = [[] for _ in range(chunks)]
        self._missing = chunks
        self._single = single
        self._callback = callback
        self._error_callback = error_callback
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        if not chunks:
            self._ended.set()  # nothing to do; multiprocessing calls no callback either

    def get(self, timeout: float | None = None) -> Any:
        """The result, or the first error that was raised, as it was raised.

        Args:
          timeout: seconds; None: as long as it takes, which the death of any process on the way ends, too.

        Raises:
          multiprocessing.TimeoutError: it was not there in time.
        """
        if not self._ended.wait(timeout):
            raise multiprocessing.TimeoutError(f"no result within {timeout:g} s; {self._missing} chunks are missing")
        if self._error is not None:
            raise self._error
        return self._result()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, for so many seconds at most."""
        self._ended.wait(timeout)

    def ready(self) -> bool:
        """Whether the result is there."""
        return self._ended.is_set()

    def successful(self) -> bool:
        """Whether it is a value and not an error.

        Raises:
          ValueError: it is not there.
        """
        if not self.ready():
            raise ValueError(f"{self!r} is not ready")
        return self._error is None

    def succeeded(self, chunk: int, values: list[Any]) -> None:
        """The pool: a chunk has ended well."""
        self._values[chunk] = values
        self._one_less()

    def failed(self, chunk: int, error: BaseException) -> None:
        """The pool: a chunk has ended in an error."""
        with self._lock:
            if self._error is None:
                self._error = error
        self._one_less()

    def _one_less(self) -> None:
        with self._lock:
            self._missing -= 1
            if self._missing:
                return
        try:
            if self._error is None and self._callback is not None:
                self._callback(self._result())
            elif self._error is not None and self._error_callback is not None:
                self._error_callback(self._error)
        except Exception:  # noqa: BLE001  the callback's own fault: told, and the result is there all the same
            traceback.print_exc()
        finally:
            self._ended.set()

    def _result(self) -> Any:
        return self._values[0][0] if self._single else [value for values in self._values for value in values]


class ImapIterator:
    """The results of `imap` and `imap_unordered`, as they come.

    An exception stands in the place of its chunk: it is raised, and the iterator goes on with the next chunk.
    """

    def __init__(self, *, ordered: bool, taken: Callable[[], object]) -> None:
        """
        Args:
          ordered: give the chunks in order of their number.
          taken: called for each chunk that was read, so that another may be begun.
        """
        self._ordered = ordered
        self._taken = taken
        self._changed = threading.Condition()
        self._chunks: dict[int, Sequence[Any] | BaseException] = {}  # ended, not read
        self._current: deque[Any] = deque()
        self._read = 0
        self._length: int | None = None  # chunks in all; None while the input is not at its end

    def __iter__(self) -> ImapIterator:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result.

        Args:
          timeout: seconds to wait for it; None: as long as it takes.

        Raises:
          StopIteration: that was all.
          multiprocessing.TimeoutError: it was not there in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._current:
            with self._changed:
                while (number := self._available()) is None:
                    if self._read == self._length:
                        raise StopIteration
                    left = None if deadline is None else max(0.0, deadline - time.monotonic())
                    if left == 0.0:
                        raise multiprocessing.TimeoutError(f"no result within {timeout:g} s")
                    self._changed.wait(left)
                chunk = self._chunks.pop(number)
                self._read += 1
            self._taken()
            if isinstance(chunk, BaseException):
                raise chunk
            self._current.extend(chunk)
        return self._current.popleft()

    def succeeded(self, chunk: int, values: list[Any]) -> None:
        """The pool: a chunk has ended well."""
        self._add(chunk, values)

    def failed(self, chunk: int, error: BaseException) -> None:
        """The pool: a chunk has ended in an error."""
        self._add(chunk, error)

    def input_ended(self, chunks: int) -> None:
        """The pool: there are so many chunks in all."""
        with self._changed:
            self._length = chunks
            self._changed.notify_all()

    def _add(self, chunk: int, outcome: Sequence[Any] | BaseException) -> None:
        with self._changed:
            self._chunks[chunk] = outcome
            self._changed.notify_all()

    def _available(self) -> int | None:
        """The number of the chunk to be read now."""
        if self._ordered:
            return self._read if self._read in self._chunks else None
        return next(iter(self._chunks), None)

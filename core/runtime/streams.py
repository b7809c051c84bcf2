"""The owner's side of a generator: its items arrive in order and are taken in order. One producer, one consumer.

    TaskYielded --arrived--> an object of its own: index 1, 2, ... of the task     index 0: the task's end
    TaskDone    --ended----> the consumer's next ref, if it waits for one, gets the mark of the end
    failure     --failed---> one more item, which raises, then the end

The item that the consumer waits for is expected in the tables before it comes (`peek`), so get, wait and futures work
on it as on any ref. Items that have come and were not taken have one ref, which passes to the consumer, or dies with
the stream.

When the task runs again it yields from the beginning: what has arrived before is dropped. A second run that yields
fewer is an error, for the first items have been seen.

Threads: `take`, `peek`, `close` are the consumer's; `arrived`, `ended`, `failed` the driver's. What both change is
under the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from .. import ids
from ..errors import ObjectRefStreamEndOfStreamError, StreamingGeneratorReplayInconsistentError
from ..generators import DynamicObjectRefGenerator, taken_when
from ..protocol.specs import Value
from ..refs import ObjectRef
from ..serialization import values
from .holdings import Holdings, failure_value

#: (refs, how many, time-out in seconds) -> (ready, not ready)
WaitForRefs = Callable[[Sequence[ObjectRef], int, "float | None"], "tuple[list[ObjectRef], list[ObjectRef]]"]


class ReturnStream:
    """The items of one generator (`generators.ItemStream`)."""

    def __init__(
        self,
        me: bytes,
        task_id: ids.TaskID,
        holdings: Holdings,
        *,
        name: str,
        wait: WaitForRefs,
        post: Callable[[Callable[[Any], None], Any], None],
        post_later: Callable[[Callable[[Any], None], Any], None],
        tell_taken: Callable[[bytes, int], None],
        backpressure: int,
    ) -> None:
        """
        Args:
          wait: wait for refs.
          post: have the driver call a function, soon.
          post_later: the same at its next tick; never blocks, takes no lock.
          tell_taken: (task id, count) tell the worker what the consumer has taken; -1: it takes no more. In the driver.
          backpressure: items that the worker may be ahead; not positive: any number, and it need not be told.
        """
        self._me = me
        self._task_id = task_id
        self._holdings = holdings
        self._name = name
        self._wait = wait
        self._post = post
        self._post_later = post_later
        self._tell_taken = tell_taken
        self._backpressure = backpressure
        self._lock = threading.RLock()  # a generator may die, and close, wherever Python collects garbage
        self._next = 0
        self._awaited: ObjectRef | None = None  # stands for item `_next`
        self._received = 0
        self._replayed = 0  # items of the present run
        self._count: int | None = None
        self._closed = False
        holdings.references.created(self._id(-1))
        holdings.objects.expect(self._id(-1))
        self.completion: ObjectRef = ObjectRef(self._id(-1), me)

    # ---- the consumer

    def take(self, timeout_s: float | None) -> ObjectRef | None:
        ref = self.peek()
        if not self._wait([ref], 1, timeout_s)[0]:
            return None
        with self._lock:
            if self._count is not None and self._next >= self._count:
                raise StopIteration
            self._next += 1
            self._awaited = None
            taken = self._next
        if self._backpressure > 0:
            self._post(lambda _: self._tell_taken(self._task_id, taken), None)
        return ref

    def peek(self) -> ObjectRef:
        with self._lock:
            if self._awaited is None:
                object_id = self._id(self._next)
                if self._next >= self._received:
                    self._holdings.references.created(object_id)
                    self._holdings.objects.expect(object_id)
                    if self._count is not None:
                        self._post(self._mark_end, object_id)
                self._awaited = ObjectRef(object_id, self._me)  # else the one that it has had since it came
            return self._awaited

    def is_ready(self) -> bool:
        return bool(self._wait([self.peek()], 1, 0.0)[0])

    async def take_async(self) -> ObjectRef:
        return await taken_when(self._holdings.settled(self.peek()), self.take)

    def is_finished(self) -> bool:
        with self._lock:
            return self._count is not None and self._next >= self._count

    def close(self) -> None:
        # Not at once: Python collects garbage where locks are held.
        self._post_later(self._drop, None)

    def take_all(self) -> list[ObjectRef]:
        """Every item that has come, for one value that holds them."""
        with self._lock:
            refs: list[ObjectRef] = []
            while self._next < self._received:
                refs.append(self.peek())
                self._next += 1
                self._awaited = None
            return refs

    # ---- the driver

    def arrived(self, index: int, value: Value, *, credit: bool = True) -> bool:
        """An item. False: it is not wanted (any more), and its memory is the caller's to free.

        Args:
          credit: as for `Holdings.resolve`.
        """
        object_id = self._id(index)
        with self._lock:
            self._replayed = index + 1
            wanted = index == self._received and not self._closed
            if wanted:
                self._received += 1
                if self._awaited is None or self._next != index:
                    self._holdings.references.created(object_id)
                    self._holdings.objects.expect(object_id)
        if wanted:
            self._holdings.resolve(object_id, value, credit=credit)
        if self._closed:
            self._tell_taken(self._task_id, -1)
        elif not wanted and self._backpressure > 0:
            self._tell_taken(self._task_id, self._next)
        return wanted

    def again(self) -> None:
        """The task is to run again, from the beginning."""
        self._replayed = 0

    def ended(self) -> None:
        """The generator has come to its end."""
        if self._replayed < self._received:
            why = (
                f"{self._name}() has run again and has yielded {self._replayed} items; "
                f"{self._received} had been received from its first run"
            )
            self.failed(failure_value(StreamingGeneratorReplayInconsistentError(why)))
        else:
            self._end()

    def failed(self, failure: Value, *, credit: bool = True) -> None:
        """It yields no more, and this is why: an item that raises. `credit` as for `arrived`."""
        if not self.arrived(self._received, failure, credit=credit) and credit:
            self._holdings.discard(failure)
        self._end()

    def gathered(self, failure: Value | None) -> None:
        """The generator has ended, or failed: the object of its end gets the refs of all items. Dynamic ones only."""
        if failure is not None and not self._received:
            self._holdings.resolve(self.completion.binary(), failure)
            return
        if failure is not None:
            self.failed(failure)
        else:
            self.ended()
        refs = self.take_all()
        value = self._holdings.keep(values.serialize(DynamicObjectRefGenerator(refs)), self._me)
        self._holdings.resolve(self.completion.binary(), value, credit=False)

    def _end(self) -> None:
        with self._lock:
            self._count = self._received
            if self._awaited is not None and self._next >= self._count:
                self._mark_end(self._awaited.binary())

    def _mark_end(self, object_id: bytes) -> None:
        end = ObjectRefStreamEndOfStreamError(f"{self._name}() yields no more than {self._count} items")
        self._holdings.objects.resolve(object_id, failure_value(end))

    def _drop(self, _: None) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.take_all()  # and let go
            self._awaited = None
        if self._count is None:
            self._tell_taken(self._task_id, -1)

    def _id(self, index: int) -> ids.ObjectID:
        return ids.object_id(self._task_id, index + 1)

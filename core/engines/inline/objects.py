"""The objects of an inline session: values by id, how many refs each has, who waits for it, what they weigh.

    expected --resolve--> valued: serialised bytes of its own; a failure is a value too
                          valued --lose--> another failure: its owner has died
    either, when its last ref is gone --> forgotten

Counting needs no owner, borrower or message: there is one process, so an object is needed as long as a Python ref to it
lives. What native counts by hand is here a Python ref that somebody holds: a value keeps the refs inside it, work keeps
those in its arguments. A view into a large value counts like a ref, so the room it takes is known to the store.

Invariants: births and deaths of refs go through one deque, in order (a ref may die wherever Python collects garbage, so
`released` only appends); counts change in `settle` alone. An id that was never expected, or is forgotten, has no entry
and no count. Values above `inline_bytes` together never exceed `store_bytes`.

Not here: locks. Everything but `received` and `released` is called by one thread at a time (turns.py sees to it).
"""

from __future__ import annotations

import logging
import os
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ... import ids
from ...errors import ObjectStoreFullError
from ...runtime.fullness import held_by, never_fits
from ...runtime.history import Row
from ...serialization import values
from ...serialization.failures import text_of
from ...serialization.values import FAILURE, Serialized

_log = logging.getLogger("shoal")


@dataclass(slots=True)
class InlineObject:
    """One object. `value` is None while it is expected."""

    count: int
    value: Serialized | None = None
    weight_bytes: int = 0  #: what it takes of the store; 0 for small values
    watchers: list[Callable[[], None]] = field(default_factory=list)


class InlineObjects:
    """Objects by id."""

    def __init__(
        self,
        driver: bytes,
        *,
        store_bytes: int,
        inline_bytes: int,
        on_free: Callable[[bytes], None],
        report_unhandled: bool = True,
    ) -> None:
        """
        Args:
          driver: worker id of the owner that never dies.
          store_bytes: room for values above `inline_bytes`, together.
          report_unhandled: log the exceptions of work whose refs go before anybody has asked for them.
          on_free: called with the id of each object that nobody needs any more, after it is forgotten.
        """
        self._driver = driver
        self._reports = report_unhandled
        self._store_bytes = store_bytes
        self._inline_bytes = inline_bytes
        self._on_free = on_free
        self._objects: dict[bytes, InlineObject] = {}
        #: Ids by owner, of those that actors own. Dictionaries for their order: what happens must not depend on hashes.
        self._mortal: dict[bytes, dict[bytes, None]] = {}
        self._used_bytes = 0
        events = self._events = deque[tuple[bytes, int]]()
        # Closures over the deque, not methods: a ref that outlives the session must not keep the session's values.
        self.received: Callable[[bytes], None] = lambda object_id: events.append((object_id, 1))
        self.released: Callable[[bytes], None] = lambda object_id: events.append((object_id, -1))

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._objects

    def value(self, object_id: bytes) -> Serialized | None:
        """The value; None while it is expected, or where there is no such object."""
        entry = self._objects.get(object_id)
        return None if entry is None else entry.value

    def entries(self) -> list[tuple[bytes, InlineObject]]:
        """All objects by id."""
        return list(self._objects.items())

    def stored(self) -> list[Row]:
        """What is in the store, as `runtime.inspecting` tells it: one row, or none."""
        entries = [(entry.weight_bytes, object_id) for object_id, entry in self._objects.items() if entry.weight_bytes]
        entries.sort(reverse=True)
        if not entries:
            return []
        return [
            {
                "worker_id": self._driver.hex(),
                "type": "driver",
                "pid": os.getpid(),
                "nbytes": sum(size for size, _ in entries),
                "objects": len(entries),
                "largest": [[object_id, size] for size, object_id in entries[:3]],
            }
        ]

    def pending(self) -> list[bytes]:
        return [object_id for object_id, entry in self._objects.items() if entry.value is None]

    def expect(self, object_id: bytes) -> None:
        """A new object with one ref."""
        self._objects[object_id] = InlineObject(count=1)
        owner = object_id[: ids.WORKER_BYTES]
        if owner != self._driver:
            self._mortal.setdefault(owner, {})[object_id] = None

    def owned(self, serialized: Serialized) -> Serialized:
        """The value with memory of its own, if the store has room for it.

        Raises:
          ObjectStoreFullError: it has not; nothing was copied.
        """
        free_bytes = self._store_bytes - self._used_bytes
        if serialized.nbytes > self._inline_bytes and serialized.nbytes > free_bytes:
            if serialized.nbytes > self._store_bytes:
                raise ObjectStoreFullError(never_fits(serialized.nbytes, self._store_bytes))
            raise ObjectStoreFullError(
                f"the object store is full: of its {self._store_bytes / 1e6:,.0f} MB, {free_bytes / 1e6:,.1f} MB are "
                f"free, and {serialized.nbytes / 1e6:,.1f} MB are needed; {held_by(self.stored())}; "
                "drop refs to objects that are not needed, or give init a larger object_store_memory"
            )
        return serialized.owned()

    def resolve(self, object_id: bytes, value: Serialized) -> None:
        """The value has come; tells the watchers. One that is forgotten, or has a value, stays as it is."""
        entry = self._objects.get(object_id)
        if entry is None or entry.value is not None:
            return
        self._set(entry, value)
        watchers, entry.watchers = entry.watchers, []
        for watcher in watchers:
            watcher()

    def lose(self, owner: bytes, failure: Callable[[bytes], Serialized]) -> None:
        """The objects that `owner` made are gone: in place of each value, there or not, stands a failure."""
        for object_id in self._mortal.pop(owner, ()):
            entry = self._objects[object_id]
            if entry.value is None:
                self.resolve(object_id, failure(object_id))
            else:
                self._set(entry, failure(object_id))

    def watch(self, object_id: bytes, watcher: Callable[[], None]) -> bool:
        """Call `watcher` when the expected object has its value. False: there is nothing to wait for."""
        entry = self._objects.get(object_id)
        if entry is None or entry.value is not None:
            return False
        entry.watchers.append(watcher)
        return True

    def load(self, object_id: bytes, value: Serialized) -> object:
        """The Python value; views into a large one count as refs to its object. Runs code of the value's classes."""
        if value.nbytes <= self._inline_bytes:
            return values.deserialize(value.kind, value.data, value.buffers)
        return values.deserialize(value.kind, value.data, [self._view(object_id, buffer) for buffer in value.buffers])

    def settle(self) -> None:
        """Work off what has happened to refs. An object that goes takes the refs inside it along, in the same call."""
        events = self._events
        while events:
            object_id, change = events.popleft()
            entry = self._objects.get(object_id)
            if entry is None:
                continue
            entry.count += change
            if not entry.count:
                del self._objects[object_id]
                if entry.value is not None and entry.value.kind == FAILURE and not entry.value.seen:
                    self._report(entry.value)
                self._mortal.get(object_id[: ids.WORKER_BYTES], {}).pop(object_id, None)
                self._used_bytes -= entry.weight_bytes
                self._on_free(object_id)

    def _report(self, failure: Serialized) -> None:
        """A failure goes that nobody has asked for: a program that never looks would not know."""
        failure.seen = True  # the returns of one task share it
        text = text_of(failure.data) if self._reports else None
        if text is not None:
            _log.error("Unhandled error (suppress with SHOAL_REPORT_UNHANDLED_ERRORS=0): %s", text)

    def _set(self, entry: InlineObject, value: Serialized) -> None:
        self._used_bytes -= entry.weight_bytes
        entry.value = value
        entry.weight_bytes = value.nbytes if value.nbytes > self._inline_bytes else 0
        self._used_bytes += entry.weight_bytes

    def _view(self, object_id: bytes, buffer: memoryview) -> memoryview:
        # An exporter of its own for each load: every array cut from it keeps it alive, and its end is the views' end.
        exporter = np.frombuffer(buffer, np.uint8)
        self.received(object_id)
        weakref.finalize(exporter, self.released, object_id).atexit = False
        return memoryview(exporter)  # type: ignore[arg-type]

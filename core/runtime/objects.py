"""The values that a process knows, by object id, and who waits for them.

    PENDING --resolved--> READY: inline bytes, or a place in shared memory; a failure is a value too
                          (a store that spills adds a third kind of place, on disk, and no state)

An entry is made for every return of a submitted task, every ``put``, and every borrowed object that somebody here has
asked for. It goes when the reference table says that nobody needs it.

`ready` and `value` may be asked from any thread (one look-up in a dict); everything else is the driver's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..protocol.specs import BlockLeft, Value
from ..serialization.values import FAILURE

#: Called with the object's id when it is READY.
Watcher = Callable[[bytes], None]


class Entry:
    """One object: PENDING while `value` is None."""

    __slots__ = ("value", "watchers")

    def __init__(self, value: Value | None = None) -> None:
        self.value = value
        self.watchers: list[Watcher] | None = None


class ObjectTable:
    """Values by object id."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._entries

    def value(self, object_id: bytes) -> Value | None:
        """The value; None while it is pending, or unknown here."""
        entry = self._entries.get(object_id)
        return None if entry is None else entry.value

    def expect(self, object_id: bytes, value: Value | None = None) -> None:
        """A new entry, READY at once if there is a value. Any thread: nobody else knows the id yet."""
        self._entries[object_id] = Entry(value)

    def resolve(self, object_id: bytes, value: Value) -> bool:
        """The value has come; tells the watchers. False: nobody expects it (any more)."""
        entry = self._entries.get(object_id)
        if entry is None or entry.value is not None:
            return False
        entry.value = value
        if entry.watchers is not None:
            watchers, entry.watchers = entry.watchers, None
            for watcher in watchers:
                watcher(object_id)
        return True

    def watch(self, object_id: bytes, watcher: Watcher) -> None:
        """Call `watcher` when the object is READY; at once if it is. The entry must exist."""
        entry = self._entries[object_id]
        if entry.value is not None:
            watcher(object_id)
        elif entry.watchers is None:
            entry.watchers = [watcher]
        else:
            entry.watchers.append(watcher)

    def unwatch(self, object_id: bytes, watcher: Watcher) -> None:
        """Take a watcher back; one that has been called or whose object is gone is no matter."""
        entry = self._entries.get(object_id)
        if entry is not None and entry.watchers is not None and watcher in entry.watchers:
            entry.watchers.remove(watcher)

    def forget(self, object_id: bytes) -> Value | None:
        """Remove the entry; returns its value, whose memory the caller may have to free."""
        entry = self._entries.pop(object_id, None)
        return None if entry is None else entry.value

    def unknown(self, blocks: Iterable[BlockLeft]) -> list[BlockLeft]:
        """Those blocks of shared memory in which no value of the table lies."""
        unknown: dict[tuple[Any, ...], BlockLeft] = {block[:2]: block for block in blocks}
        for entry in list(self._entries.values()):  # made in one go: other threads put objects in meanwhile
            value = entry.value
            if value is not None and isinstance(value.payload, tuple):
                unknown.pop(value.payload[:2], None)
        return list(unknown.values())


class Wait:
    """Somebody waits until `count` of some objects are READY, or, if `failure_ends`, until one has failed.

    `done` is set by the driver and read by the waiting thread. O(1) for each object that becomes ready.
    """

    __slots__ = ("_failure_ends", "_left", "_objects", "done", "seen")

    def __init__(self, objects: ObjectTable, count: int, *, failure_ends: bool) -> None:
        self._objects = objects
        self._left = count
        self._failure_ends = failure_ends
        self.done = count <= 0
        #: How many objects have called `ready`.
        self.seen = 0

    def ready(self, object_id: bytes) -> None:
        """The watcher of each object that is waited for."""
        self.seen += 1
        self._left -= 1
        if self._left <= 0:
            self.done = True
        elif self._failure_ends and not self.done:
            value = self._objects.value(object_id)
            self.done = value is not None and value.kind == FAILURE

"""What dead processes owned and somebody still reads: the head's table. Pure.

An object dies with its owner: ``get`` raises OwnerDiedError. But a process that had its bytes in hand goes on reading
them, so their memory must stay until it lets go; and memory that nobody reads must come back, though the owner, whose
affair that was, is gone. So the head inherits the memory.

    owner dies         GATHERING: every process is asked what it reads of the owner's objects (ProcessDied)
    all have answered  SETTLED: the rest is nobody's and is freed, wherever it lies
    held               an object with its readers; the last one's release or death frees it

Only places count, not refs: a ref without the bytes is worth nothing when the owner is dead. A place passes from one
process to another only as the argument of a task or call, and who sends that reads it, too, until it is answered;
before it answers, a receiver that goes on reading has told us and has our word (`HoldOrphan`). Hence

  * whatever is freed at the end of GATHERING is read by nobody: who reads it has said so, or stands behind one who has;
  * what a dead reader has read, and may have passed on, is looked at again only when everybody has answered about that
    reader, too: one of its receivers may be about to tell.

Each process speaks for itself over one ordered link, so readers are a set and not a count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .. import ids
from ..protocol.specs import Location


@dataclass(slots=True)
class Orphan:
    """An object whose owner is dead, or said to be."""

    place: Location
    readers: set[bytes] = field(default_factory=set)


class OrphanTable:
    """All of them."""

    def __init__(self, is_alive: Callable[[bytes], bool]) -> None:
        """
        Args:
          is_alive: whether a process is not known to be dead.
        """
        self._is_alive = is_alive
        self._orphans: dict[bytes, Orphan] = {}
        #: Dead process -> who has not answered about it.
        self._gathering: dict[bytes, set[bytes]] = {}
        #: Objects that a dead process was the last to read; looked at again when it is settled.
        self._left: dict[bytes, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._orphans)

    def is_gathering(self, process: bytes) -> bool:
        """Whether not everybody has answered about a dead process."""
        return process in self._gathering

    def kept(self) -> set[int]:
        """Where the objects lie that somebody reads."""
        return {orphan.place[0] for orphan in self._orphans.values()}

    def died(self, process: bytes, members: Iterable[bytes]) -> None:
        """A process is dead; `members`, those who live, are being told."""
        # It stays among those who are waited for elsewhere until it is settled itself: it may have passed places on and
        # died before it could tell of them; its receivers tell when they answer about it.
        self._gathering[process] = set(members)
        for object_id, orphan in self._orphans.items():
            if process in orphan.readers:
                orphan.readers.remove(process)
                if not orphan.readers:
                    self._left.setdefault(process, []).append(object_id)

    def answered(self, process: bytes, reader: bytes, held: Sequence[tuple[bytes, Location]]) -> None:
        """What a living process reads of a dead one's objects; all of it."""
        for object_id, place in held:
            self.hold(reader, object_id, place)
        self._gathering.get(process, set()).discard(reader)

    def hold(self, reader: bytes, object_id: bytes, place: Location) -> None:
        """A process reads an object."""
        orphan = self._orphans.setdefault(object_id, Orphan(tuple(place)))
        orphan.readers.add(reader)

    def release(self, reader: bytes, object_id: bytes) -> Location | None:
        """A process reads it no more. Returns what is to be freed now: before its owner is settled, nothing."""
        orphan = self._orphans.get(object_id)
        if orphan is None or reader not in orphan.readers:
            return None
        orphan.readers.remove(reader)
        return self._free_if_unread(object_id)

    def settle(self) -> tuple[list[bytes], list[Location]]:
        """(the dead about whom everybody has answered by now, what is to be freed of what they were the last to read).

        Whatever else the dead owned, and `kept` does not name, is to be freed, too.
        """
        settled: list[bytes] = []
        while over := [process for process, waited_for in self._gathering.items() if not waited_for]:
            for process in over:
                del self._gathering[process]
                for waited_for in self._gathering.values():
                    waited_for.discard(process)
            settled += over
        freed = []
        for process in settled:
            for object_id in self._left.pop(process, ()):
                place = self._free_if_unread(object_id)
                if place is not None:
                    freed.append(place)
        if settled:
            for object_id in [object_id for object_id, orphan in self._orphans.items() if not orphan.readers]:
                place = self._free_if_unread(object_id)  # released while its owner was gathered
                if place is not None:
                    freed.append(place)
        return settled, freed

    def _free_if_unread(self, object_id: bytes) -> Location | None:
        orphan, owner = self._orphans.get(object_id), _owner(object_id)
        if orphan is None or orphan.readers or owner in self._gathering or self._is_alive(owner):
            return None
        if any(object_id in left for left in self._left.values()):
            return None  # one of a dead reader's receivers may be about to tell
        del self._orphans[object_id]
        return orphan.place


def _owner(object_id: bytes) -> bytes:
    return object_id[: ids.WORKER_BYTES]

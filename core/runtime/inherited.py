"""What this process reads of other processes' objects in shared memory, and who has to know when their owners die.

While an owner lives, it counts its borrowers (holdings.py). When it is dead, the head keeps the memory of what somebody
still reads (node/orphans.py), and wants to know:

    seen           a place in shared memory is read here
    tell           a process has died: here is what we read of its objects (the answer to ProcessDied)
    hold           we read an object of a dead owner that we did not read then: it came as an argument, from a process
                   that guards it until the head has confirmed (BorrowAdded)
    let_go         the last ref is gone

In the driver of the loop only.
"""

from __future__ import annotations

from ..protocol import messages as m
from ..protocol.specs import Location
from ..transport.loop import Loop
from .objects import ObjectTable
from .references import ReferenceTable


class Inherited:
    """Places of one process in objects of others."""

    def __init__(self, loop: Loop, objects: ObjectTable, references: ReferenceTable, *, head: bytes) -> None:
        self._loop = loop
        self._objects = objects
        self._references = references
        self._head = head
        #: Where objects lie that something here sees, or has seen while a ref was left.
        self._places: dict[bytes, Location] = {}
        #: Objects of dead owners that the head has been told we read.
        self._told: set[bytes] = set()
        #: Those that the head may not know of yet.
        self.unsure: set[bytes] = set()

    def seen(self, object_id: bytes, place: Location, *, owner_is_dead: bool) -> None:
        """Something here begins to read an object."""
        self._places[object_id] = place
        if owner_is_dead and object_id not in self._told:
            self.unsure.add(object_id)

    def place_to_tell(self, object_id: bytes) -> Location | None:
        """Where an object of a dead owner lies that we read, if the head is not sure to know that we do."""
        known = object_id in self._told and object_id not in self.unsure
        if known or object_id not in self._references:
            return None
        value = self._objects.value(object_id)
        if value is not None and isinstance(value.payload, tuple):
            return value.payload
        return self._places.get(object_id)

    def hold(self, object_id: bytes, place: Location) -> None:
        """Tell the head that we read it."""
        self._told.add(object_id)
        self.unsure.add(object_id)
        self._loop.send(self._head, m.HoldOrphan(object_id, place))

    def confirmed(self, object_id: bytes) -> None:
        """The head knows."""
        self.unsure.discard(object_id)

    def tell(self, process: bytes) -> None:
        """A process is dead: tell the head what we read of its objects; first, what it may have vouched for."""
        for object_id in self.unsure - self._told:
            self.hold(object_id, self._places[object_id])
        held = []
        for object_id, record in list(self._references):
            place = self.place_to_tell(object_id) if record.owner == process else None
            if place is not None:
                self._told.add(object_id)
                self.unsure.discard(object_id)
                held.append((object_id, place))
        self._loop.send(self._head, m.OrphansHeld(process, held))

    def let_go(self, object_id: bytes) -> None:
        """No ref to it is left here."""
        self._places.pop(object_id, None)
        self.unsure.discard(object_id)
        if object_id in self._told:
            self._told.remove(object_id)
            self._loop.send(self._head, m.ReleaseOrphan(object_id))

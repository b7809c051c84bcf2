"""Who still needs which object: the reference table of one process. Pure.

A process counts, for every object it knows of:

    local       Python refs, and views into shared memory (an array keeps its object alive)
    submitted   tasks under way that were given the ref, or a value with the ref inside
    contained   objects that this process keeps alive and in which the ref stands
    borrowers   (owner only) processes that have told that they hold the ref

An own object is freed when all four are zero. A borrowed one is dropped when the first three are, and the owner is
told, once for each time that we were registered with it (`credit`).

The chain never breaks: a ref is handed on only while the giver holds it, and the giver lets go only when the owner
knows of the new holder. `unregistered` names the borrowed refs of which the owner does not know yet; whoever guards
them now (the task's submitter, the object they came in) has to guard them until it does.

Counts of borrowers may be negative for a moment: a borrower's RemoveBorrow and the news of its borrow can come by
different links. Only zero means nobody.

Not here: values (objects.py), messages (process.py). Effects are reported through the two callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator


class Reference:
    """The counts of one object. `owner` is empty for an own object."""

    __slots__ = ("borrowers", "contained", "contains", "credit", "local", "owner", "submitted")

    def __init__(self, owner: bytes, local: int, submitted: int = 0) -> None:
        self.owner = owner
        self.local = local
        self.submitted = submitted
        self.contained = 0
        self.credit = 0
        self.borrowers: dict[bytes, int] | None = None
        self.contains: list[bytes] | None = None

    @property
    def held(self) -> bool:
        """Whether this process itself needs it."""
        return bool(self.local or self.submitted or self.contained)


class ReferenceTable:
    """Counts of all objects this process knows of."""

    def __init__(
        self, me: bytes, *, on_free: Callable[[bytes], None], on_drop: Callable[[bytes, bytes, int], None]
    ) -> None:
        """
        Args:
          on_free: an own object is needed by nobody any more.
          on_drop: (object, owner, credit): a borrowed object is not needed here any more.
        """
        self._me = me
        self._references: dict[bytes, Reference] = {}
        self._unregistered: set[bytes] = set()
        self._on_free = on_free
        self._on_drop = on_drop

    def __len__(self) -> int:
        return len(self._references)

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._references

    def __iter__(self) -> Iterator[tuple[bytes, Reference]]:
        return iter(self._references.items())

    def get(self, object_id: bytes) -> Reference | None:
        return self._references.get(object_id)

    # ---- births; `created` may be called by any thread, since nobody else knows the id yet

    def created(self, object_id: bytes, *, local: int = 1, submitted: int = 0) -> None:
        """An own object with its first refs."""
        self._references[object_id] = Reference(b"", local, submitted)

    def received(self, object_id: bytes, owner: bytes) -> None:
        """A Python ref was made from bytes."""
        self._known(object_id, owner).local += 1

    def received_all(self, object_ids: Iterable[bytes], owner: bytes) -> None:
        """As `received`, for many objects of one owner."""
        references = self._references
        for object_id in object_ids:
            record = references.get(object_id)
            if record is None:
                record = self._known(object_id, owner)
            record.local += 1

    def contain(self, outer: bytes, inner: Iterable[tuple[bytes, bytes]], *, credit: bool) -> None:
        """`outer`, which this process keeps, holds these (id, owner) inside.

        Args:
          credit: whoever made the value has registered us with the owners of the inner refs.
        """
        record = self._references.get(outer)
        for object_id, owner in inner:
            known = self._known(object_id, owner)
            if credit and known.owner:
                self._credit(object_id, known)
            if record is None:
                self._check(object_id, known)  # outer is gone already; perhaps nobody else needs the inner
            else:
                known.contained += 1
                if record.contains is None:
                    record.contains = []
                record.contains.append(object_id)

    # ---- uses

    def released(self, object_id: bytes) -> None:
        """A Python ref or a view is gone."""
        record = self._references.get(object_id)
        if record is not None:
            record.local -= 1
            # Asked here too: a call less for each ref of many that stand in an object which lives on.
            if not (record.local or record.contained):
                self._check(object_id, record)

    def use(self, object_id: bytes, owner: bytes) -> None:
        """A task that needs it is under way."""
        self._known(object_id, owner).submitted += 1

    def unuse(self, object_id: bytes) -> None:
        """That task has ended."""
        record = self._references.get(object_id)
        if record is not None:
            record.submitted -= 1
            self._check(object_id, record)

    # ---- borrowers, as the owner sees them

    def borrowed(self, object_id: bytes, borrower: bytes, count: int = 1) -> bool:
        """`borrower` holds it `count` times more (or less). False: the object is gone."""
        record = self._references.get(object_id)
        if record is None:
            return False
        if record.borrowers is None:
            record.borrowers = {}
        left = record.borrowers.get(borrower, 0) + count
        if left:
            record.borrowers[borrower] = left
        else:
            record.borrowers.pop(borrower, None)
            self._check(object_id, record)
        return True

    def process_died(self, process: bytes) -> list[bytes]:
        """Drop what a dead process borrowed from us; returns what we hold of its own objects."""
        orphans = []
        for object_id, record in list(self._references.items()):
            if record.owner == process:
                orphans.append(object_id)
                record.credit = 0  # there is nobody left to tell
            elif record.borrowers and record.borrowers.pop(process, None) is not None:
                self._check(object_id, record)
        return orphans

    # ---- borrowing, as the borrower sees it

    @property
    def has_unregistered(self) -> bool:
        """Whether `unregistered` could name any."""
        return bool(self._unregistered)

    def unregistered(self) -> list[tuple[bytes, bytes]]:
        """(id, owner) of borrowed refs held here whose owner has not been told."""
        if not self._unregistered:
            return []
        found = []
        for object_id in self._unregistered:
            record = self._references.get(object_id)
            if record is not None and record.held:
                found.append((object_id, record.owner))
        return found

    def registered(self, object_id: bytes) -> None:
        """The owner is being told that we hold it: by a message under way, or by the reply that the caller is about to
        send.
        """
        record = self._references.get(object_id)
        if record is not None:
            self._credit(object_id, record)

    # ---- internals

    def _known(self, object_id: bytes, owner: bytes) -> Reference:
        record = self._references.get(object_id)
        if record is None:
            # Ours but freed: a count of its own, so that releases balance; there is no value to get any more.
            record = self._references[object_id] = Reference(b"" if owner == self._me else owner, 0)
            if record.owner:
                self._unregistered.add(object_id)
        return record

    def _credit(self, object_id: bytes, record: Reference) -> None:
        record.credit += 1
        self._unregistered.discard(object_id)

    def _check(self, object_id: bytes, record: Reference) -> None:
        if record.local or record.submitted or record.contained or record.borrowers:
            return
        # `contain` reports inner refs one after another; cascades must not recurse, a list of lists may be deep.
        ready = [(object_id, record)]
        while ready:
            object_id, record = ready.pop()
            if self._references.pop(object_id, None) is None:
                continue
            self._unregistered.discard(object_id)
            if record.owner:
                self._on_drop(object_id, record.owner, record.credit)
            else:
                self._on_free(object_id)
            for inner_id in record.contains or ():
                inner = self._references[inner_id]
                inner.contained -= 1
                if not (inner.held or inner.borrowers):
                    ready.append((inner_id, inner))

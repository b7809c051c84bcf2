"""What a process holds: objects that it owns or borrows, their memory, and what processes say to each other about them.

    put, task results ---> own object ----- FetchObject / ObjectValue ----> borrower's copy of value or place
                             |  ^---------- AddBorrow / BorrowAdded, RemoveBorrow ---- borrower
                             v
                          memory: inline bytes, or a place in shared memory that all processes of the node map

A view into shared memory counts as a ref to its object, so memory is never reused under an array, whoever holds it.

Threads: `put`, `load`, `released`, `received` may be called from any thread and post what changes the tables; `on_*`,
and what is called from handlers, runs in the driver of the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from .. import ids
from ..errors import ObjectLostError, OwnerDiedError, ShoalError
from ..protocol import messages as m
from ..protocol.specs import Value, WireRef, take_value
from ..refs import ObjectRef
from ..serialization import values
from ..serialization.failures import serialize_error, text_of
from ..serialization.values import FAILURE, Serialized
from ..store.client import Location, StoreClient
from ..transport.loop import Loop
from .futures import FutureDesk
from .inherited import Inherited
from .objects import ObjectTable, Wait
from .references import ReferenceTable

_log = logging.getLogger("shoal")

if TYPE_CHECKING:
    import asyncio


def failure_value(error: ShoalError) -> Value:
    """An error of the runtime as a value."""
    serialized = serialize_error(error)
    return Value(serialized.kind, serialized.data, [], [])


def wire_refs(refs: Iterable[ObjectRef]) -> list[WireRef]:
    """Refs as they travel."""
    return [(ref.binary(), ref.owner) for ref in refs]


class Holdings:
    """References, values and memory of one process. Also the sink of its refs' births and deaths (`refs.RefEvents`)."""

    def __init__(
        self,
        me: bytes,
        loop: Loop,
        store: StoreClient,
        *,
        head: bytes,
        inline_bytes: int,
        report_unhandled: bool = True,
    ) -> None:
        """
        Args:
          head: who inherits the objects of dead processes.
          report_unhandled: log the exceptions of tasks whose refs go before anybody has asked for them.
        """
        self._reports = report_unhandled
        self._me = me
        self._head = head
        self._loop = loop
        self._store = store
        self._inline_bytes = inline_bytes
        self.objects = ObjectTable()
        self.references = ReferenceTable(me, on_free=self._free, on_drop=self._drop)
        #: Called when an object that stands for an actor is freed: object id -> what to do.
        self.guarded: dict[bytes, Callable[[], None]] = {}
        #: What waits until (object, borrower) is known to the object's owner.
        self._unconfirmed: dict[tuple[bytes, bytes], list[Callable[[], None]]] = {}
        self._fetching: dict[bytes, bytes] = {}
        self._futures = FutureDesk(
            lambda ref, ready: loop.submit(lambda _: self.watch(ref.binary(), ref.owner, ready), None),
            lambda ref, ready: loop.post(lambda _: self.objects.unwatch(ref.binary(), ready), None),
            self.load,
        )
        self._dead: set[bytes] = set()
        #: Called, in the thread of an event loop, when a coroutine begins to wait for a ref that has no value.
        self.on_awaited: Callable[[ObjectRef, asyncio.Future[Any]], None] = lambda ref, future: None
        #: What we read of others' objects, for when they die.
        self.inherited = Inherited(loop, self.objects, self.references, head=head)
        append, count_up = loop.posts.append, self._count_received
        # A bare id among the posts: a ref dies in 0.1 us where an entry for a function would cost 0.1 more.
        loop.on_id = self.references.released
        self.released: Callable[[bytes], None] = append
        # A closure and not a method: it runs for every ref that comes alone, at 0.1 us instead of 0.2.
        self.received: Callable[[bytes, bytes], None] = lambda object_id, owner: append((count_up, (object_id, owner)))
        loop.on(m.FetchObject, self._on_fetch_object)
        loop.on(m.ObjectValue, self._on_object_value)
        loop.on(m.AddBorrow, self._on_add_borrow)
        loop.on(m.BorrowAdded, self._on_borrow_added)
        loop.on(m.RemoveBorrow, self._on_remove_borrow)
        loop.on(m.OwnerGone, self._on_owner_gone)

    # ---- in any thread: refs

    def received_all(self, object_ids: list[bytes], owner: bytes) -> None:
        """As `received`, for many refs to objects of one owner."""
        self._loop.post(self._count_all_received, (object_ids, owner))

    def escaped(self, ref: ObjectRef) -> None:
        """Pickled by a foreign pickler: nobody can count the copies, so the object stays until this process ends, as in
        Ray.
        """
        self._loop.post(self._count_received, (ref.binary(), ref.owner))

    def future(self, ref: ObjectRef) -> Future[Any]:
        """A future of the ref's value; its callbacks run in a thread of their own, and may use the API."""
        return self._futures.add(ref)

    def awaited(self, ref: ObjectRef, future: asyncio.Future[Any]) -> None:
        """A coroutine waits for the ref, until `future` is done."""
        if self.objects.value(ref.binary()) is None:
            self.on_awaited(ref, future)

    def settled(self, ref: ObjectRef) -> Future[Any]:
        """A future that is done, with None, when the object has a value or has failed."""
        if self.objects.value(ref.binary()) is not None:
            done: Future[Any] = Future()
            done.set_result(None)
            return done
        return self._futures.add(ref, loaded=False)

    def fail_futures(self, error: ShoalError) -> None:
        """Nothing will come any more."""
        self._futures.fail(error)

    # ---- in any thread: put, load

    def put(self, object_id: bytes, serialized: Serialized) -> ObjectRef:
        """Own a new object.

        Raises:
          ObjectStoreFullError: it does not fit into shared memory.
        """
        value = self.keep(serialized, self._me)
        self.references.created(object_id)
        self.objects.expect(object_id, value)
        if value.contained:
            self._loop.post(self._count_contained, (object_id, value.contained, serialized.refs))
        return ObjectRef(object_id, self._me)

    def keep(self, serialized: Serialized, owner: bytes) -> Value:
        """Bytes that last: copied into shared memory, or, if small, into a value of their own."""
        contained = wire_refs(serialized.refs) if serialized.refs else []
        if serialized.nbytes > self._inline_bytes:
            return Value(serialized.kind, self._store.put(serialized, owner), [], contained)
        owned = serialized.owned()
        return Value(owned.kind, owned.data, owned.buffers, contained)

    def load(self, ref: ObjectRef) -> Any:
        """The Python value of a READY object.

        Raises:
          Exception: the object is a failure; this is the error.
        """
        value = self.objects.value(ref.binary())
        if value is None:  # freed by hand of ours or lost between two looks
            raise ObjectLostError(f"{ref!r} has no value any more", object_ref_hex=ref.hex())
        result = self.load_value(ref.binary(), ref.owner, value)
        if value.contained and ref.owner != self._me:
            # The owner guards the inner refs only as long as we hold the outer one.
            self._loop.post(self._adopt, (ref.binary(), ref))
        if value.kind == FAILURE:
            value.seen = True
            assert isinstance(result, BaseException), "a FAILURE holds an exception"
            raise result
        return result

    def load_value(self, object_id: bytes, owner: bytes, value: Value, *, guard: bytes = b"") -> Any:
        """Deserialise; arrays of a stored object are views that keep the object alive.

        Args:
          guard: the process that keeps the object alive until ours is counted; empty: this one.

        Raises:
          OwnerDiedError: the guard is dead, so the memory may be gone.
        """
        if not value.stored:
            return values.deserialize(value.kind, value.payload, value.buffers)  # type: ignore[arg-type]
        self._loop.post(self._count_view, (object_id, owner, value.payload))
        if guard in self._dead:  # asked after the post: if it dies from here on, the view is counted before its death
            self.released(object_id)
            raise _owner_died(object_id, owner)
        released = self.released
        data, buffers = self._store.view(Location.from_wire(value.payload), lambda: released(object_id))
        return values.deserialize(value.kind, data, buffers)

    def free_place(self, value: Value) -> None:
        """Give back the memory of a value that has no object (any more)."""
        if value.stored:
            self._store.free(Location.from_wire(value.payload))

    # ---- in the driver: waiting

    def await_all(self, wait: Wait, refs: Sequence[tuple[bytes, bytes]]) -> None:
        """Have `wait` told of each of these (id, owner)."""
        for object_id, owner in refs:
            self.watch(object_id, owner, wait.ready)

    def give_up(self, wait: Wait, refs: Sequence[tuple[bytes, bytes]]) -> None:
        """Nobody looks at `wait` any more."""
        for object_id, _ in refs:
            self.objects.unwatch(object_id, wait.ready)

    def watch(self, object_id: bytes, owner: bytes, watcher: Callable[[bytes], None]) -> None:
        """Call `watcher` when the object has a value here; a borrowed one is fetched from its owner."""
        if object_id not in self.objects:
            self.objects.expect(object_id)
            if owner == self._me:
                self._lose(
                    object_id,
                    f"ObjectRef({object_id.hex()}) was freed: every ref to it that this process knew of had gone",
                )
            elif not owner:
                self._lose(
                    object_id, f"ObjectRef({object_id.hex()}) was made by hand from an id: nobody knows its owner"
                )
            elif owner in self._dead:
                self.objects.resolve(object_id, failure_value(_owner_died(object_id, owner)))
            else:
                self._fetching[object_id] = owner
                self._loop.send(owner, m.FetchObject(object_id))
        self.objects.watch(object_id, watcher)

    def expect_soon(self, refs: Sequence[tuple[bytes, bytes]]) -> None:
        """Somebody will look for these again: fetch those that are borrowed and not here."""
        for object_id, owner in refs:
            if object_id not in self.objects:
                self.watch(object_id, owner, _no_matter)

    @property
    def owns_anything(self) -> bool:
        """Whether something would be lost with this process: objects of its own, which somebody needs, or actors."""
        return any(not record.owner for _, record in self.references)

    # ---- in the driver: results of our submissions

    def resolve(self, object_id: bytes, value: Value, *, credit: bool = True) -> None:
        """An object that we expected has its value.

        Args:
          credit: whoever made it has registered us with the owners of the refs inside, for this object.
        """
        if value.contained:
            self.references.contain(object_id, value.contained, credit=credit)
        if not self.objects.resolve(object_id, value):
            self.free_place(value)  # its refs have gone while it was made

    def discard(self, value: Value) -> None:
        """A result that nobody will see: its memory, and the borrows that were made for us of the refs inside."""
        self.free_place(value)
        self.references.contain(b"", value.contained, credit=True)

    # ---- in the driver: handing refs on

    def hand_over(self, receiver: bytes, contained: Collection[WireRef], then: Callable[[list[bytes]], None]) -> None:
        """Make sure that every ref which leaves with a message to `receiver`, or stays here after it, is known to its
        owner.

        Args:
          receiver: the process that the message goes to.
          contained: refs inside the values that it gets.
          then: called when all is confirmed, at once if it can; given the receiver's own objects that we still hold,
            whose borrow the message itself will report.
        """
        if not contained and not self.references.has_unregistered:
            then([])  # the common case, 1.5 us sooner
            return
        asked: list[tuple[bytes, bytes, bytes]] = []
        for object_id, owner in contained:
            if owner == self._me:
                if receiver not in self._dead:
                    self.references.borrowed(object_id, receiver)
            elif owner != receiver:
                asked.append((object_id, owner, receiver))
        mine = []
        for object_id, owner in self.references.unregistered():
            self.references.registered(object_id)
            if owner == receiver:
                mine.append(object_id)
            else:
                asked.append((object_id, owner, self._me))
        if self.inherited.unsure:
            asked += [(object_id, object_id[: ids.WORKER_BYTES], self._me) for object_id in self.inherited.unsure]
        self._ask_owners(asked, lambda: then(mine))

    def _ask_owners(self, asked: Sequence[tuple[bytes, bytes, bytes]], then: Callable[[], None]) -> None:
        """AddBorrow for each (object, owner, borrower); `then` when all owners have answered or are dead."""
        if not asked:
            then()
            return
        open_questions = [question for question in asked if question[1] not in self._dead]
        heirless = [object_id for object_id, owner, b in asked if owner in self._dead and b == self._me]
        places = {object_id: self.inherited.place_to_tell(object_id) for object_id in heirless}
        readable = {object_id: place for object_id, place in places.items() if place is not None}
        open_questions += [(object_id, self._head, self._me) for object_id in readable]
        if not open_questions:
            then()
            return
        left = len(open_questions)

        def confirmed() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                then()

        for object_id, owner, borrower in open_questions:
            self._unconfirmed.setdefault((object_id, borrower), []).append(confirmed)
            if owner == self._head:
                self.inherited.hold(object_id, readable[object_id])
            else:
                self._loop.send(owner, m.AddBorrow(object_id, borrower))

    def drop_results(self, results: Iterable[Value]) -> None:
        """Results that were made for a process which is dead."""
        for value in results:
            if value.stored:
                place = Location.from_wire(value.payload)
                if place.is_dedicated:
                    self._loop.send(self._head, m.DropResult(place))
                else:
                    self._store.free_unread(place)

    def _adopt(self, loaded: tuple[bytes, ObjectRef]) -> None:
        """Refs came out of a borrowed object: register with their owners, holding the outer ref until they know."""
        _, outer = loaded
        asked = [(object_id, owner, self._me) for object_id, owner in self.references.unregistered()]
        for object_id, _, _ in asked:
            self.references.registered(object_id)
        self._ask_owners(asked, lambda: _let_go(outer))

    # ---- in the driver: counts

    def _count_received(self, ref: tuple[bytes, bytes]) -> None:
        self.references.received(*ref)

    def _count_all_received(self, refs: tuple[list[bytes], bytes]) -> None:
        self.references.received_all(*refs)

    def _count_view(self, entry: tuple[bytes, bytes, Location]) -> None:
        object_id, owner, place = entry
        self.references.received(object_id, owner)
        if owner != self._me:
            self.inherited.seen(object_id, place, owner_is_dead=owner in self._dead)

    def _count_contained(self, entry: tuple[bytes, list[WireRef], list[ObjectRef]]) -> None:
        # The Python refs in the entry have kept the inner objects alive until here.
        self.references.contain(entry[0], entry[1], credit=False)

    def _free(self, object_id: bytes) -> None:
        value = self.objects.forget(object_id)
        if value is not None:
            if value.kind == FAILURE and not value.seen:
                self._report(value)
            self.free_place(value)
        guard = self.guarded.pop(object_id, None)
        if guard is not None:
            guard()

    def _report(self, failure: Value) -> None:
        """A failure goes that nobody has asked for: a program that never looks would not know."""
        failure.seen = True  # the returns of one task share it
        text = text_of(failure.payload) if self._reports and isinstance(failure.payload, bytes) else None
        if text is not None:
            _log.error("Unhandled error (suppress with SHOAL_REPORT_UNHANDLED_ERRORS=0): %s", text)

    def _drop(self, object_id: bytes, owner: bytes, credit: int) -> None:
        self.objects.forget(object_id)
        self._fetching.pop(object_id, None)
        self.inherited.let_go(object_id)
        if credit and owner not in self._dead:
            self._loop.send(owner, m.RemoveBorrow(object_id, credit))

    def _lose(self, object_id: bytes, why: str) -> None:
        self.objects.resolve(object_id, failure_value(ObjectLostError(why, object_ref_hex=object_id.hex())))

    # ---- in the driver: messages

    def _on_fetch_object(self, peer: bytes, message: m.FetchObject) -> None:
        def answer(object_id: bytes) -> None:
            value = self.objects.value(object_id)
            assert value is not None, "watchers are called with a value in place"
            value.seen = True
            buffers: list[Any] = []
            self._loop.send(peer, m.ObjectValue(object_id, value.wire(buffers), value.contained, buffers))

        if message.object_id in self.objects:
            self.objects.watch(message.object_id, answer)
        else:
            lost = failure_value(
                ObjectLostError(
                    f"ObjectRef({message.object_id.hex()}) was freed by its owner",
                    object_ref_hex=message.object_id.hex(),
                )
            )
            self._loop.send(peer, m.ObjectValue(message.object_id, lost.wire([]), [], []))

    def _on_object_value(self, peer: bytes, message: m.ObjectValue) -> None:
        if self._fetching.pop(message.object_id, None) is not None:
            self.objects.resolve(message.object_id, take_value(message.value, message.buffers, list(message.contained)))

    def _on_add_borrow(self, peer: bytes, message: m.AddBorrow) -> None:
        if message.borrower not in self._dead:
            self.references.borrowed(message.object_id, message.borrower)
        self._loop.send(peer, m.BorrowAdded(message.object_id, message.borrower))

    def _on_borrow_added(self, peer: bytes, message: m.BorrowAdded) -> None:
        if peer == self._head:
            self.inherited.confirmed(message.object_id)
        waiting = self._unconfirmed.get((message.object_id, message.borrower))
        if waiting:
            waiting.pop(0)()
            if not waiting:
                self._unconfirmed.pop((message.object_id, message.borrower), None)

    def _on_remove_borrow(self, peer: bytes, message: m.RemoveBorrow) -> None:
        self.references.borrowed(message.object_id, peer, -message.count)

    def is_dead(self, process: bytes) -> bool:
        """Whether we have been told of its death."""
        return process in self._dead

    def _on_owner_gone(self, peer: bytes, message: m.OwnerGone) -> None:
        self._store.owner_died(message.process, message.kept)

    def process_died(self, process: bytes) -> None:
        """Its borrows are void; its objects are lost, except the copies that are here already."""
        if process in self._dead:
            return  # noticed before it was announced
        self._dead.add(process)
        orphans = set(self.references.process_died(process))
        orphans.update(object_id for object_id, owner in self._fetching.items() if owner == process)
        for object_id in orphans:
            self._fetching.pop(object_id, None)
            if object_id in self.objects:
                self.objects.resolve(object_id, failure_value(_owner_died(object_id, process)))
        # The dead confirm nothing more. What was asked about a dead borrower is answered by its owner as usual.
        for object_id, borrower in list(self._unconfirmed):
            if object_id[: ids.WORKER_BYTES] != process:
                continue
            place = self.inherited.place_to_tell(object_id) if borrower == self._me else None
            if place is not None:
                for _ in self._unconfirmed[object_id, borrower]:  # the head confirms in its stead, each once
                    self.inherited.hold(object_id, place)
                continue
            for confirmed in self._unconfirmed.pop((object_id, borrower)):
                confirmed()


def _owner_died(object_id: bytes, owner: bytes) -> OwnerDiedError:
    return OwnerDiedError(
        f"ObjectRef({object_id.hex()}) is lost: the process that owned it (worker {owner.hex()}) has died",
        object_ref_hex=object_id.hex(),
    )


def _let_go(_ref: ObjectRef) -> None:
    """The closure that called this was the last to hold the ref."""


def _no_matter(_object_id: bytes) -> None:
    """Watches an object for nobody."""

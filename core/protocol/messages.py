"""Every message of the runtime, in one place.

A message is a typed struct with a wire tag, a path (sender -> receiver), the reply it expects if any, and whether the
receiver tolerates it twice. Messages are treated as frozen once sent; `frozen=True` would cost 1.1 us each to make,
four times the rest.

Field order is wire order. Fields that may change from version to version go last. The field `buffers` of a message, if
it has one, holds byte buffers that travel as frames of their own, uncopied.

Invariant: between two processes, messages in one direction arrive in the order in which they were sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .specs import BlockLeft, Location, WireMethod, WireRef, WireValue

TYPES: dict[int, type[Message]] = {}


class Message:
    """Base of all messages; the class variables are set by `message`."""

    __slots__ = ()
    TAG: ClassVar[int]
    PATH: ClassVar[str]
    REPLY: ClassVar[str]
    RESEND: ClassVar[bool]
    #: Takes the fields, without `buffers`, as a tuple.
    VALUES: ClassVar[Callable[[Any], tuple[Any, ...]]]
    #: Whether it has the field `buffers`.
    CARRIES: ClassVar[bool]

    # Here and not made by `dataclass` for each of sixty classes: that takes 5 ms of every import.

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names: tuple[str, ...] = self.__slots__
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]  # as of any dataclass that can change

    def __repr__(self) -> str:
        names: tuple[str, ...] = self.__slots__
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


M = TypeVar("M")

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform() -> Callable[[M], M]:
        """For type checkers only: `typing` has it from Python 3.11 on."""
        return lambda decorator: decorator


@dataclass_transform()
def message(tag: int, *, path: str, reply: str = "", resend: bool) -> Callable[[type[M]], type[M]]:
    """Register a struct as a message: its wire tag, who sends it to whom, the name of its reply, and whether the
    receiver tolerates it twice.
    """

    def register(cls: type[M]) -> type[M]:
        # Any: what a decorator adds to a class is beyond its type.
        make: Any = dataclass(slots=True, eq=False, repr=False)
        struct: Any = make(cls)
        if tag in TYPES:
            raise ValueError(f"tag {tag} is already {TYPES[tag].__name__}")
        TYPES[tag] = struct
        names = [f.name for f in fields(struct) if f.name != "buffers"]
        struct.TAG, struct.PATH, struct.REPLY, struct.RESEND = tag, path, reply, resend
        struct.CARRIES = any(f.name == "buffers" for f in fields(struct))
        if len(names) > 1:
            struct.VALUES = attrgetter(*names)
        else:  # attrgetter of one name gives the bare value
            struct.VALUES = staticmethod(lambda m: tuple(getattr(m, name) for name in names))
        registered: type[M] = struct
        return registered

    return register


# ---- links and membership


@message(1, path="any -> any", resend=True)
class Hello(Message):
    """First on every link: proves knowledge of the session's token. What comes before it is dropped unread."""

    token: bytes
    peer: bytes  #: who opened the link


@message(2, path="driver, worker -> head", reply="Registered", resend=False)
class Register(Message):
    """A process joins the session; its socket is bound and takes messages."""

    worker_id: bytes
    kind: str  #: "driver" or "worker"
    pid: int


@message(3, path="head -> driver, worker", resend=True)
class Registered(Message):
    """Welcome: where and what this session is."""

    node_id: bytes
    resources: dict[str, int]  #: totals of the node without those of placement groups, in 1/10_000
    labels: dict[str, str]  #: of the node


@message(4, path="head -> driver, worker", resend=True)
class ProcessDied(Message):
    """A process of the session is gone. Its leases, borrows and objects are gone with it."""

    worker_id: bytes
    cause: str  #: in words: signal or exit code, whose signal it was, the last lines of its stderr


@message(5, path="driver -> head", resend=True)
class Shutdown(Message):
    """End the session."""


@message(6, path="head -> worker", resend=True)
class Exit(Message):
    """Finish what is queued, then leave."""


@message(7, path="head -> worker", reply="Stay", resend=True)
class LeaveIfIdle(Message):
    """There are more idle workers than needed: leave, unless something would be lost with you."""


@message(8, path="worker -> head", resend=True)
class Stay(Message):
    """Something would: live objects or actors are this worker's own. It takes work as before."""


# ---- questions with numbered answers


@message(10, path="any -> head", reply="Answer", resend=True)
class ExportFunction(Message):
    """Store a pickled function or class under its content hash."""

    request: int
    key: bytes
    blob: bytes


@message(11, path="any -> head", reply="Answer", resend=True)
class FetchFunction(Message):
    """Ask for an exported function's bytes."""

    request: int
    key: bytes


@message(12, path="any -> head", reply="Answer", resend=False)
class RequestRegion(Message):
    """Ask for a region of the arena; the answer is its offset, or None when the store is full."""

    request: int
    size_bytes: int


@message(13, path="any -> head", resend=False)
class ReleaseRegion(Message):
    """Give a region back: nothing lives in it."""

    offset: int


@message(14, path="any -> head", reply="Answer", resend=True)
class FindActor(Message):
    """Ask for a named actor; the answer is (actor id, class name, methods, max_pending_calls) or None."""

    request: int
    name: str
    namespace: str


@message(15, path="head -> any", resend=True)
class Answer(Message):
    """The value asked for by request number `request`."""

    request: int
    value: Any


@message(16, path="any -> head", reply="Answer", resend=True)
class DescribeNode(Message):
    """Ask for (node id, total, available resources)."""

    request: int


# ---- leases


@message(20, path="owner -> head", reply="LeaseGranted", resend=True)
class DemandLeases(Message):
    """How many more workers of this shape the owner could use now. Absolute: the last word counts, 0 withdraws."""

    key: int  #: the owner's number for this shape
    shape: dict[str, int]  #: resource name -> amount, in 1/10_000
    wanted: int
    environment: bytes  #: what the workers must have been started with; see resolved.py


@message(21, path="head -> owner", resend=True)
class LeaseGranted(Message):
    """The worker is the owner's until it is returned."""

    key: int
    worker_id: bytes
    gpus: list[str]  #: ids of the GPUs that the tasks may use


@message(22, path="head -> owner", resend=True)
class LeaseRefused(Message):
    """No worker of this shape can be had here. Never, and `reason` says what is asked and what there is; or because
    workers of its environment do not come up (`failed_starts`), and it says why; or not any more (`removed`).
    """

    key: int
    reason: str
    failed_starts: bool
    removed: bool  #: its placement group is gone: tasks at work inside fail too, their processes are being killed


@message(23, path="owner -> head", resend=False)
class ReturnLease(Message):
    """The owner has no more work for this worker, and none is left at it."""

    worker_id: bytes
    retired: bool  #: nor may anybody else give it any


@message(24, path="worker -> head", resend=True)
class Blocked(Message):
    """The worker's task waits in get or wait: its CPU may be used by others (True), or it goes on and takes it back
    (False).
    """

    blocked: bool


@message(25, path="owner, head -> worker", resend=True)
class Equip(Message):
    """What the worker's tasks (or its actor) hold from now on. Comes before the first of them."""

    shape: dict[str, int]  #: in 1/10_000; names of a placement group's resources if they run in one
    gpus: list[str]  #: ids
    captures: bool  #: what they submit runs in the same placement group, unless told otherwise


# ---- tasks and calls


@message(30, path="owner -> worker", reply="TaskDone", resend=False)
class RunTask(Message):
    """Run an exported function. Small arguments ride along, large ones are in shared memory."""

    task_id: bytes
    function: bytes  #: key of the exported function
    name: str
    arguments: WireValue  #: (args, kwargs); kind -1: none
    arguments_object: bytes  #: id of the object that holds them when they are in shared memory, else empty
    slots: list[tuple[bytes, bytes, WireValue]]  #: (object id, owner, value) for each top-level ref argument
    num_returns: int  #: negative: a generator, as `options` says
    backpressure: int  #: items of a generator that may be ahead of its consumer; -1: any number
    max_calls: int  #: the worker leaves after so many calls of this function; 0: never
    buffers: list[Any] = field(default_factory=list)


@message(31, path="caller -> actor's worker", reply="TaskDone", resend=False)
class CallMethod(Message):
    """Call a method of the actor that lives in this worker. Calls of one caller run in the order sent."""

    task_id: bytes
    actor_id: bytes
    method: str
    group: str  #: concurrency group; empty: the default one
    arguments: WireValue
    arguments_object: bytes
    slots: list[tuple[bytes, bytes, WireValue]]
    num_returns: int
    backpressure: int
    buffers: list[Any] = field(default_factory=list)


@message(32, path="worker -> owner", resend=False)
class TaskDone(Message):
    """The results of a task or call, one per return; a failure stands once and counts for all returns."""

    task_id: bytes
    failed: bool
    results: list[tuple[WireValue, list[WireRef]]]
    borrows: list[bytes]  #: objects of the receiver that the worker still holds
    duration_us: int
    buffers: list[Any] = field(default_factory=list)


@message(33, path="worker -> owner", resend=True)
class TasksReturned(Message):
    """These tasks have not begun and will not begin here: the one before them blocks or takes long."""

    task_ids: list[bytes]


@message(37, path="worker -> owner", resend=True)
class TaskYielded(Message):
    """The next item of a generator, in order, before its TaskDone. When the task runs again, from the beginning."""

    task_id: bytes
    index: int
    value: WireValue
    contained: list[WireRef]
    borrows: list[bytes]  #: objects of the receiver that the worker still holds
    buffers: list[Any] = field(default_factory=list)


@message(38, path="owner -> worker", resend=True)
class ItemsTaken(Message):
    """How many items of a generator the consumer has taken; -1: it takes no more, and need be sent none."""

    task_id: bytes
    count: int


@message(39, path="worker -> owner", resend=True)
class WorkerRetires(Message):
    """The task under way is the last that this worker runs (`max_calls`): return the lease with `retired` after it."""


@message(34, path="borrower -> owner", resend=True)
class CancelObject(Message):
    """Cancel the task that makes this object."""

    object_id: bytes
    force: bool
    recursive: bool


@message(35, path="owner -> worker", resend=True)
class CancelTask(Message):
    """Cancel a task or call that is with this worker. Answered by its TaskDone; not at all if it has been already."""

    task_id: bytes
    force: bool  #: end the process, if that is what it takes
    recursive: bool  #: also what it has submitted


@message(36, path="owner -> head", resend=True)
class KillLeased(Message):
    """End a worker that is leased to the sender: it has not obeyed a forced CancelTask."""

    worker_id: bytes


# ---- actors


@message(40, path="creator -> head", reply="ActorUpdate", resend=False)
class CreateActor(Message):
    """Bring an actor to life. With a `request` number it only reserves the name; the Answer is None, or the handle
    parts of who has it.
    """

    request: int
    actor_id: bytes
    class_key: bytes
    class_name: str
    methods: dict[str, WireMethod]  #: public methods and how they are called
    name: str
    namespace: str
    detached: bool
    required: dict[str, int]  #: held while it lives
    placement: dict[str, int]  #: what the node must have in total
    max_restarts: int  #: -1: as often as it dies
    max_concurrency: int  #: calls at once; 0: as its class demands
    groups: dict[str, int]  #: concurrency groups and their bounds
    environment: bytes  #: what its process must have been started with
    max_pending_calls: int  #: of one caller; -1: any number
    arguments: WireValue
    arguments_object: bytes
    slots: list[tuple[bytes, bytes, WireValue]]
    captures: bool  #: what the actor submits runs in its placement group
    refused: str  #: why no node suits its options; empty: this one does
    buffers: list[Any] = field(default_factory=list)


@message(41, path="head -> worker", reply="ActorStarted", resend=False)
class StartActor(Message):
    """Become this actor: load the class, run ``__init__``."""

    actor_id: bytes
    creator: bytes
    class_key: bytes
    class_name: str
    max_concurrency: int
    groups: dict[str, int]
    arguments: WireValue
    arguments_object: bytes
    slots: list[tuple[bytes, bytes, WireValue]]
    buffers: list[Any] = field(default_factory=list)


@message(42, path="worker -> head", resend=False)
class ActorStarted(Message):
    """``__init__`` has returned (failure is kind -1), or raised; borrowed refs are registered by then."""

    actor_id: bytes
    failure: WireValue
    buffers: list[Any] = field(default_factory=list)


@message(43, path="head -> watcher", resend=True)
class ActorUpdate(Message):
    """Where an actor's life has come to; RESTARTING or DEAD, `failure` is the error that calls under way get."""

    actor_id: bytes
    state: str
    worker_id: bytes
    failure: WireValue
    buffers: list[Any] = field(default_factory=list)


@message(44, path="any -> head", reply="ActorUpdate", resend=True)
class WatchActor(Message):
    """Tell me this actor's state now and whenever it changes."""

    actor_id: bytes


@message(45, path="any -> head", resend=True)
class KillActor(Message):
    """End the actor's process at once; with `no_restart` the actor too."""

    actor_id: bytes
    no_restart: bool


@message(47, path="actor's worker -> head", reply="Answer", resend=True)
class ActorExits(Message):
    """The actor ends by its own wish, and is not restarted."""

    request: int
    actor_id: bytes


@message(48, path="any -> head", reply="Answer", resend=True)
class DescribeActor(Message):
    """Ask about an actor; the answer is None, or what FindActor gives and then its name, namespace and restarts."""

    request: int
    actor_id: bytes


@message(46, path="creator -> head", resend=True)
class ActorOutOfScope(Message):
    """The last handle is gone and no call is under way: the actor may leave."""

    actor_id: bytes


# ---- placement groups


@message(70, path="creator -> head", reply="GroupUpdate", resend=False)
class CreateGroup(Message):
    """Set resources aside, all bundles or none, now or when they are free. With a `request` number, which a name needs,
    there is an Answer first: whether the name was free.
    """

    request: int
    group_id: bytes
    name: str
    namespace: str
    strategy: str
    bundles: list[dict[str, int]]  #: in 1/10_000
    detached: bool


@message(71, path="any -> head", reply="GroupUpdate", resend=True)
class WatchGroup(Message):
    """Tell me this group's state now and whenever it changes."""

    group_id: bytes


@message(72, path="head -> watcher", resend=True)
class GroupUpdate(Message):
    """What has become of a group: PENDING, CREATED or REMOVED."""

    group_id: bytes
    state: str


@message(73, path="any -> head", reply="GroupUpdate", resend=True)
class RemoveGroup(Message):
    """Give the group's resources back, and end what runs inside."""

    group_id: bytes


@message(74, path="any -> head", reply="Answer", resend=True)
class DescribeGroups(Message):
    """Ask for groups: the one of this id, or of this name and namespace, or with neither all. The answer is a list of
    (id, name, strategy, bundles, state, attempts, seconds until it was reserved or -1).
    """

    request: int
    group_id: bytes
    name: str
    namespace: str


# ---- objects and references


@message(50, path="borrower -> owner", reply="ObjectValue", resend=True)
class FetchObject(Message):
    """Ask for an object's value or place; answered when there is one."""

    object_id: bytes


@message(51, path="owner -> borrower", resend=True)
class ObjectValue(Message):
    """The object's value (a FAILURE when there is none to be had) and the refs inside it."""

    object_id: bytes
    value: WireValue
    contained: list[WireRef]
    buffers: list[Any] = field(default_factory=list)


@message(52, path="executor, borrower -> owner", reply="BorrowAdded", resend=False)
class AddBorrow(Message):
    """`borrower` holds the object from now on."""

    object_id: bytes
    borrower: bytes


@message(53, path="owner -> executor, borrower", resend=True)
class BorrowAdded(Message):
    """The owner counts the borrower; what guarded the ref until now may let go."""

    object_id: bytes
    borrower: bytes


@message(54, path="borrower -> owner", resend=False)
class RemoveBorrow(Message):
    """The borrower holds the object no more; takes back `count` AddBorrows."""

    object_id: bytes
    count: int


# ---- what goes on: asked, never told unasked


@message(80, path="any -> head", reply="Answer", resend=True)
class Survey(Message):
    """Ask the head, and through it processes, what goes on. The answer is (rows of the head; (worker id, rows, whether
    these are all) for each process that answered; worker ids of those that did not in time).
    """

    request: int
    subject: str  #: what the rows are about, as in `runtime.inspecting`
    key: bytes  #: only what concerns this task, object or actor; empty: everything
    target: bytes  #: the one process to ask; empty: all; the head's own name: none
    limit: int  #: rows from each process at most
    timeout_s: float  #: how long a process may take to answer


@message(81, path="head -> driver, worker", reply="Inspected", resend=True)
class Inspect(Message):
    """Tell what you know; see `Survey`."""

    number: int
    subject: str
    key: bytes
    limit: int


@message(82, path="driver, worker -> head", resend=True)
class Inspected(Message):
    """The rows asked for by `number`."""

    number: int
    rows: list[dict[str, Any]]
    is_all: bool  #: there are no more than the limit let through


@message(83, path="worker -> head", resend=False)
class Farewell(Message):
    """A worker leaves, and soon: what it would have answered to an `Inspect`, by subject."""

    rows: dict[str, list[dict[str, Any]]]


@message(84, path="any -> head -> driver", resend=True)
class Notice(Message):
    """Something waits and nothing will end it; the head passes each cause on once."""

    cause: str
    words: str


@message(85, path="worker -> head", resend=True)
class Measured(Message):
    """What user code of this process has measured so far (measures.py), in case it dies before it is asked."""

    rows: list[dict[str, Any]]


# ---- objects of the dead


@message(90, path="driver, worker -> head", resend=True)
class OrphansHeld(Message):
    """The answer to `ProcessDied`: of the objects that `process` owned, those whose bytes the sender reads; all."""

    process: bytes
    held: list[tuple[bytes, Location]]


@message(91, path="driver, worker -> head", reply="BorrowAdded", resend=True)
class HoldOrphan(Message):
    """The sender reads this object of a dead process from now on."""

    object_id: bytes
    place: Location


@message(92, path="driver, worker -> head", resend=True)
class ReleaseOrphan(Message):
    """The sender reads it no more."""

    object_id: bytes


@message(93, path="head -> driver, worker", resend=True)
class OwnerGone(Message):
    """Free what `process` owned in slabs of yours, but for what lies at the places `kept`."""

    process: bytes
    kept: list[int]


@message(94, path="worker -> head", resend=False)
class DropResult(Message):
    """A large result that was made for a process which is dead: nobody will ever know of it."""

    place: Location


@message(95, path="head -> driver, worker", resend=True)
class BlocksLeft(Message):
    """Blocks of yours in the memory of `process`, which is dead and has been heard out by all: free those that you have
    never been told of. Each is (offset of its payload, serial, whether it has a region of its own).
    """

    process: bytes
    blocks: list[BlockLeft]


# ---- head and zygote


@message(60, path="head -> zygote", resend=False)
class Fork(Message):
    """Fork a worker; it answers for itself, by Register, or its end does, by Reaped. Its stdout and stderr come along
    as descriptors.
    """

    worker_id: bytes
    environment: bytes


@message(62, path="head -> zygote", resend=True)
class KillWorker(Message):
    """SIGKILL the worker. The zygote is its parent, so the pid cannot have been given to another process."""

    worker_id: bytes


@message(64, path="zygote -> head", resend=True)
class ForkFailed(Message):
    """There is no such worker; `reason` says why."""

    worker_id: bytes
    reason: str


@message(63, path="zygote -> head", resend=True)
class Reaped(Message):
    """The worker's process has ended; `status` as from ``waitpid``."""

    worker_id: bytes
    status: int

"""Every exception of the runtime.

    ShoalError
     |- TaskError                      the user's code raised; at get() also an instance of what it raised
     |- TaskCancelledError
     |- WorkerCrashedError
     |- OutOfMemoryError
     |- ActorError
     |   |- ActorDiedError
     |   `- ActorUnavailableError
     |- ObjectLostError
     |   |- OwnerDiedError
     |   |- ObjectFreedError
     |   |- ObjectReconstructionFailedError
     |   |- ObjectFetchTimedOutError
     |   `- ReferenceCountingAssertionError   also AssertionError
     |- ObjectStoreFullError  OutOfDiskError
     |- GetTimeoutError                also TimeoutError
     |- HeadDiedError  NodeDiedError
     |- SessionError
     |   |- EngineUnavailableError
     |   |   `- ClusterConnectionError  also ConnectionError
     |   |- PlacementGroupNameTakenError   also ValueError
     |   |- StreamingGeneratorReplayInconsistentError
     |   |- RayChannelError
     |   |   `- RayChannelTimeoutError  also TimeoutError
     |   `- RayCgraphCapacityExceeded  RayDirectTransportError
     |- UnschedulableError
     |   |- TaskUnschedulableError
     |   `- ActorUnschedulableError
     |- TaskPlacementGroupRemoved  ActorPlacementGroupRemoved
     |- PendingCallsLimitExceeded
     |- ObjectRefStreamEndOfStreamError
     |- RuntimeEnvSetupError
     |- ActorAlreadyExistsError        also ValueError
     |- ActorHandleNotFoundError       also ValueError
     |- AuthenticationError
     |- AsyncioActorExit
     |- OufOfBandObjectRefSerializationException  UserCodeException  UnserializableException
     |- RpcError  CrossLanguageError  PlasmaObjectNotAvailable
     |- StateApiError
     `- ProtocolError

Some are here for programs that name them in ``except``, and are raised by nothing in this version; they say so.
Programs that raise them themselves may use Ray's order of arguments or ours.

Wrong arguments are not here: they are ValueError and TypeError where they are given. Every class is made from one
message and keyword attributes, and comes back from plain pickle with its type, message and attributes. Ray's names
for the same classes stand at the end.
"""

from __future__ import annotations

from .task_error import ShoalError as ShoalError, TaskError as TaskError


class TaskCancelledError(ShoalError):
    """The task was cancelled by ``cancel`` before it had a result. Raised by ``get``. Never retried by the runtime;
    submit it again to run it.
    """

    def __init__(
        self, message: str = "the task was cancelled", error_message: str | None = None, *, task_id: str | None = None
    ) -> None:
        super().__init__(error_message or message)
        self.task_id = task_id  #: hex


class WorkerCrashedError(ShoalError):
    """The process that ran the task died (signal, exit) and no retries were left. Raised by ``get``.

    Not when the user's code raised (`TaskError`), nor for an actor (`ActorDiedError`). A retry helps unless the task
    itself kills its process.
    """


class OutOfMemoryError(ShoalError):
    """The task's process was killed because the machine ran out of memory. Raised by nothing in this version, which
    does not tell such a kill from any other: see `WorkerCrashedError`.
    """


class ActorError(ShoalError):
    """Base of errors of calls to an actor that is not there; never raised itself.

    Attributes:
      actor_id: hex id of the actor.
      actor_init_failed: its ``__init__`` raised; every restart would raise again.
      preempted: its machine was taken away; never here.
    """

    def __init__(
        self,
        message: str | TaskError | None = None,
        error_msg: str | None = None,
        actor_init_failed: bool = False,  # noqa: FBT001, FBT002  Ray's order
        preempted: bool = False,  # noqa: FBT001, FBT002
        *,
        actor_id: str | None = None,
    ) -> None:
        """
        Args:
          message: what happened; or a failed ``__init__``. Together with `error_msg` it is the id, as in Ray.
          error_msg: what happened.
          actor_init_failed: see above.
          preempted: see above.
          actor_id: see above.
        """
        if error_msg is not None and actor_id is None and isinstance(message, str):
            actor_id = message
        if isinstance(message, TaskError):
            actor_init_failed = True
            message = f"the actor died because of an error raised in its creation task, {message}"
        super().__init__(error_msg or message or "the actor died before the call had finished")
        self.actor_id = actor_id
        self.actor_init_failed = actor_init_failed
        self.preempted = preempted


class ActorDiedError(ActorError):
    """The actor is dead for good: killed, crashed with no restarts left, out of scope, or its ``__init__`` raised.

    Raised by ``get`` of a method call, never by the call itself. A retry of the call cannot help; create another actor.
    """


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now (it restarts) and may come back; the call may or may not have run. Raised by
    ``get``.

    A retry can help, if the method may run twice. Not when the actor is known to be dead (`ActorDiedError`).
    """

    def __init__(self, message: str = "", actor_id: str | bytes | None = None) -> None:
        super().__init__(message, actor_id=actor_id.hex() if isinstance(actor_id, bytes) else actor_id)


class ObjectLostError(ShoalError):
    """All copies of the object are gone and it cannot be made again (a ``put`` object has no task to run again).
    Raised by ``get``.

    A retry of the ``get`` cannot help; make the object again.
    """

    def __init__(
        self,
        message: str = "",
        owner_address: bytes | None = None,
        call_site: str | None = None,
        *,
        object_ref_hex: str | None = None,
    ) -> None:
        """
        Args:
          message: what happened. Together with `call_site` it is the ref in hex, as in Ray.
          owner_address: for Ray programs; unused here.
          call_site: likewise.
          object_ref_hex: the ref.
        """
        if call_site is not None and object_ref_hex is None:
            object_ref_hex, message = message, f"the object {message} is lost"
        super().__init__(message)
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site or ""


class OwnerDiedError(ObjectLostError):
    """The process that submitted the task or called ``put`` has died, and its objects with it. Raised by ``get`` in a
    borrower.
    """


class ObjectFreedError(ObjectLostError):
    """The object was freed on purpose while a ref to it was left. Raised by ``get``. The program frees too early; no
    retry helps.
    """


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost and the task that made it could not be run again. Raised by nothing in this version, which
    runs no task again for its result: see `ObjectLostError`.
    """


class ObjectFetchTimedOutError(ObjectLostError):
    """A copy of the object exists and could not be fetched in time. Raised by nothing: one machine has one copy."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object was deleted although a ref to it is left. Raised by nothing here: it would be a fault in shoal."""


class ObjectStoreFullError(ShoalError):
    """No room for an object in shared memory, or the machine has no memory to back it. Raised by ``put`` and by
    returning a large result.

    A retry helps once refs to other objects are dropped. Not for small values, which do not enter the store.
    """


class GetTimeoutError(ShoalError, TimeoutError):
    """``get`` was given a timeout and the value was not there in time. The task goes on; a later ``get`` of the same
    ref can succeed.
    """


class OutOfDiskError(ShoalError):
    """The disk that objects are spilled to is full. Raised by nothing in this version, which does not spill."""


class NodeDiedError(ShoalError):
    """The machine that ran the task or actor is gone. Raised by nothing in this version, which has one machine."""


class HeadDiedError(ShoalError):
    """The head process of the session is gone, so nothing can be scheduled. Raised by every waiting call. Call
    shutdown() and init() again.
    """


class SessionError(ShoalError):
    """The call needs another state of the session: it is not started, is shut down, or has failed inside. The message
    says which.
    """

    def __init__(self, message: object = "", traceback_str: str | None = None) -> None:
        super().__init__(message)
        self.traceback_str = traceback_str

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n{self.traceback_str}" if self.traceback_str else text


class EngineUnavailableError(SessionError):
    """``init(engine=...)`` asks for an engine that cannot be had: its library is missing or of another version than the
    cluster's, or its workers lack what shoal needs. The message says what to install or to change.
    """


class ClusterConnectionError(EngineUnavailableError, ConnectionError):
    """No cluster answers at the address that ``init`` was given. A retry helps when it has been started."""


class StreamingGeneratorReplayInconsistentError(SessionError):
    """A generator task that was run again yielded another number of values than the first time."""


class RayChannelError(SessionError):
    """A channel of a compiled graph has failed. Raised by nothing: there are no compiled graphs; likewise the next."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """As `RayChannelError`."""


class RayCgraphCapacityExceeded(SessionError):  # noqa: N818  Ray's name
    """As `RayChannelError`."""


class RayDirectTransportError(SessionError):
    """A transfer from GPU to GPU has failed. Raised by nothing: there are none."""


class UnschedulableError(ShoalError):
    """No machine of the cluster can ever satisfy the demand. Raised by ``get``, at once rather than never; base of
    the two below. Raised itself by ``placement_group()``.

    Not while the resources exist but are busy: such work waits. A retry helps only with a smaller demand or a larger
    cluster.
    """


class TaskUnschedulableError(UnschedulableError):
    """As `UnschedulableError`, of a task."""


class ActorUnschedulableError(UnschedulableError):
    """As `UnschedulableError`, of an actor: raised by ``get`` of its method calls."""


class TaskPlacementGroupRemoved(ShoalError):  # noqa: N818  Ray's name
    """The placement group that the task was to run in, or ran in, has been removed. Raised by ``get``, also of
    ``ready()`` of the group. No retry helps; create another group.
    """


class ActorPlacementGroupRemoved(ShoalError):  # noqa: N818  Ray's name
    """The placement group that the actor lived in, or was to live in, has been removed. Raised by ``get`` of its method
    calls. No retry helps.
    """


class PendingCallsLimitExceeded(ShoalError):  # noqa: N818  Ray's name
    """The handle has ``max_pending_calls`` calls unanswered. Raised by ``.remote()`` itself. A retry helps once some
    are answered.
    """


class ObjectRefStreamEndOfStreamError(ShoalError):
    """A generator has no more items. Raised by ``get`` of a ref that `wait` was given for its next item; iteration ends
    instead.
    """


class RuntimeEnvSetupError(ShoalError):
    """The environment that a task asked for (``runtime_env``) could not be made. Raised by ``get``; where a folder
    could not be copied, by the call itself. (An actor is dead then, with that reason.) The message says which step
    failed; a retry helps when its reason has gone.
    """


class ActorAlreadyExistsError(ValueError, ShoalError):
    """A living actor of the namespace has the name. Raised by ``.remote()``. Use ``get_actor`` or
    ``get_if_exists=True``; the name is free on its death.
    """


class ActorHandleNotFoundError(ValueError, ShoalError):
    """No such actor: no living one has the name (``get_actor``), or the handle is of an earlier session (``kill``).
    Create it first, or wait until its creator has.
    """


class PlacementGroupNameTakenError(SessionError, ValueError):
    """A placement group of the namespace has the name. Raised by ``placement_group()``. Ray's is a RaySystemError, as
    this is. The name is free when that group is removed.
    """


class AuthenticationError(ShoalError):
    """The peer did not show the session's key. Raised by nothing in this version: what such a peer sends is dropped
    unread, and a session cannot be joined by its address yet.
    """


class AsyncioActorExit(ShoalError):  # noqa: N818  Ray's name
    """Ends an actor from within a coroutine. Raised by nothing: ``exit_actor`` needs no other way there."""


class OufOfBandObjectRefSerializationException(ShoalError):  # noqa: N818  Ray's name, and Ray's spelling
    """A ref was pickled by another pickler than the runtime's. Raised by nothing: that is allowed here."""


class UserCodeException(ShoalError):  # noqa: N818  Ray's name
    """For libraries that name it: the user's code raised inside a library's."""


class UnserializableException(ShoalError):  # noqa: N818  Ray's name
    """An exception could not be loaded here. Raised by nothing: a `TaskError` with its text arrives instead."""


class RpcError(ShoalError):
    """A message to another process failed. Raised by nothing: see `HeadDiedError` and `WorkerCrashedError`."""

    def __init__(self, message: str = "", rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code


class CrossLanguageError(ShoalError):
    """Code in another language raised. Raised by nothing: there is Python only."""


class PlasmaObjectNotAvailable(ShoalError):  # noqa: N818  Ray's name
    """The object is not in the local store. Raised by nothing: ``get`` waits for it."""


class StateApiError(ShoalError):
    """A question of ``shoal.util.state`` cannot be answered: it filters by what there is not, or processes did not tell
    all that was asked for. The message says which; ``raise_on_missing_output=False`` takes what there is.
    """


class ProtocolError(ShoalError):
    """A peer said what it may not say: an unknown message, a wrong field, another version. Raised by the codec; a
    fault in shoal, no retry helps.
    """


# ---- Ray's names

RayError = ShoalError
RayTaskError = TaskError
RayActorError = ActorError
RayStateApiException = StateApiError
RaySystemError = SessionError
LocalRayletDiedError = HeadDiedError

"""A task or actor call as its owner knows it, from ``.remote()`` to the last use of its arguments. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..protocol.messages import CallMethod, CreateActor, RunTask
from .history import ACTOR_CREATION_TASK, ACTOR_TASK, NORMAL_TASK, Row, task_identity
from .streams import ReturnStream


@dataclass(slots=True)
class Submission:
    """Work on its way: a task, a call, or the creation of an actor.

    message: what will be sent once the arguments are there; its slots are filled then.
    returns: ids of the objects that it makes.
    dependencies: (id, owner) of the refs that stood as arguments; their values go into the slots.
    uses: (id, owner) of every ref that must live until it is done: the dependencies, refs inside arguments, stored
      arguments.
    missing: dependencies that have no value yet.
    """

    message: RunTask | CallMethod | CreateActor
    name: str
    returns: list[bytes]
    dependencies: list[tuple[bytes, bytes]]
    uses: list[tuple[bytes, bytes]]
    missing: int = 0
    #: Times that it may be run again after its worker has died (or by `retry_on`); -1: as often as need be.
    retries: int = 0
    #: Exceptions of the user's code after which it may be run again.
    retry_on: tuple[type[BaseException], ...] = ()
    #: The owner's number of the resource shape (tasks).
    shape: int = 0
    failed: bool = False
    #: When it was submitted, by `time.perf_counter`.
    submitted_s: float = field(default_factory=time.perf_counter)
    #: The task that submitted it; empty outside tasks.
    parent: bytes = b""
    #: It counts against its actor's `max_pending_calls`.
    limited: bool = False
    #: Of a generator: where its items go.
    stream: ReturnStream | None = None
    #: `cancel` has been asked for: it is not run again.
    cancelled: bool = False

    @property
    def alone(self) -> bool:
        """Whether it has a worker to itself while it is in flight.

        A task that must not run twice: then a death of the worker is its own and nobody else's, and whether it had
        begun is no question. And one after which the worker may leave.
        """
        return not self.retries or bool(self.message.max_calls)  # type: ignore[union-attr]

    @property
    def task_id(self) -> bytes:
        return self.message.task_id  # type: ignore[union-attr]

    @property
    def actor_id(self) -> bytes:
        """Of the actor that it creates or calls; empty for a task."""
        return b"" if isinstance(self.message, RunTask) else self.message.actor_id

    @property
    def is_creation(self) -> bool:
        return isinstance(self.message, CreateActor)

    @property
    def kind(self) -> str:
        """Ray's word for what it is."""
        if isinstance(self.message, CreateActor):
            return ACTOR_CREATION_TASK
        return NORMAL_TASK if isinstance(self.message, RunTask) else ACTOR_TASK

    def identity(self, owner: bytes) -> Row:
        """The part of its row in a list of tasks that never changes."""
        task_id = b"" if isinstance(self.message, CreateActor) else self.message.task_id
        return task_identity(task_id, self.name, self.kind, self.actor_id, owner)

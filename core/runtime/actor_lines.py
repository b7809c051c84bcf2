"""The owner's side of actors: the line of calls to each, and the creations that are on their way. In the loop's driver.

    creation   --send_creation--> the head; its arguments are held until it is ALIVE, or as long as it may restart
    call       --enqueue--> ActorLine (calls.py) --send--> the actor's process, in order
    the head   --ActorUpdate--> ALIVE: send; RESTARTING: again or fail; DEAD: fail

Not here: how a call ends (completions.py), how it was made (submitting.py).
"""

from __future__ import annotations

from ..errors import ActorDiedError
from ..protocol import messages as m
from ..protocol.specs import Value, take_value
from ..transport.loop import Loop
from .calls import ActorLine
from .completions import Completions
from .holdings import Holdings, failure_value
from .tasks import Submission


class ActorLines:
    """What this process knows of actors, and has asked of them."""

    def __init__(self, loop: Loop, holdings: Holdings, completions: Completions, *, head: bytes) -> None:
        self._loop = loop
        self._holdings = holdings
        self._completions = completions
        self._head = head
        self.lines: dict[bytes, ActorLine] = {}
        #: Creations that may still have to run: they hold the arguments of ``__init__``.
        self.creations: dict[bytes, Submission] = {}
        #: Actor that lives in a worker we have called.
        self._lived_in: dict[bytes, bytes] = {}
        loop.on(m.ActorUpdate, self._on_actor_update)

    def announce(self, creation: Submission) -> None:
        """An actor of ours is to be created. Any thread: nobody else knows its id yet."""
        line = self.lines[creation.actor_id] = ActorLine()
        line.state = "PENDING"
        self.creations[creation.actor_id] = creation

    def send_creation(self, submission: Submission) -> None:
        message = submission.message
        assert isinstance(message, m.CreateActor)
        line = self.lines.get(message.actor_id)
        if line is not None and line.state != "DEAD":  # else it has ended while it waited for its arguments
            self._loop.send(self._head, message)

    def enqueue(self, submission: Submission) -> None:
        message = submission.message
        assert isinstance(message, m.CallMethod)
        line = self.lines.get(message.actor_id)
        if line is None:
            line = self.lines[message.actor_id] = ActorLine()
        if line.state == "DEAD":
            assert line.failure is not None
            self._completions.fail(submission, line.failure, "ACTOR_DIED")
            return
        if line.state == "UNKNOWN":
            line.state = "PENDING"
            self._loop.send(self._head, m.WatchActor(message.actor_id))
        line.submit(submission)
        self.send(message.actor_id)

    def send(self, actor_id: bytes) -> None:
        """Send what can go now."""
        line = self.lines.get(actor_id)
        if line is None:
            return  # a call that has just ended held the last handle
        for call in line.sendable():
            if call.failed:
                line.done(call.task_id)
            else:
                self._loop.send(line.worker_id, call.message)

    def done(self, worker_id: bytes, task_id: bytes) -> Submission | None:
        actor_id = self._lived_in.get(worker_id)
        return None if actor_id is None else self.lines[actor_id].done(task_id)

    def again(self, call: Submission) -> None:
        """A call that has raised is to be tried again: next in line."""
        self.lines[call.actor_id].again(call)
        self.send(call.actor_id)

    def _on_actor_update(self, peer: bytes, message: m.ActorUpdate) -> None:
        # Posted, all of them in their order: we are in the middle of receiving, and what an actor said before its death
        # comes first.
        self._loop.post(self._update, message)

    def _update(self, message: m.ActorUpdate) -> None:
        line = self.lines.get(message.actor_id)
        if line is None:
            return
        if line.state == "DEAD":
            return  # killed by us, or heard of before: what was under way then does not matter
        if line.worker_id and message.state != "ALIVE":
            self._loop.hear_out(line.worker_id)
        if message.state == "ALIVE":
            line.state, line.worker_id = "ALIVE", message.worker_id
            self._lived_in[message.worker_id] = message.actor_id
            if not self._restartable(message.actor_id):
                self._creation_over(message.actor_id)
            self.send(message.actor_id)
        elif message.state == "RESTARTING":
            self._lived_in.pop(line.worker_id, None)
            failure = take_value(message.failure, message.buffers)
            for call in line.lost():
                self._completions.fail(call, failure, "ACTOR_UNAVAILABLE")
        elif message.state == "DEAD":
            self.failed(message.actor_id, take_value(message.failure, message.buffers))

    def kill(self, actor_id: bytes, class_name: str, *, no_restart: bool) -> None:
        """End an actor's process. With `no_restart` the actor is dead for this process from here on: no later call can
        slip through before the kill arrives.
        """
        failure = None
        if no_restart:
            hexed = actor_id.hex()
            why = f"{class_name} (actor {hexed}) is dead: it was killed by kill()"
            failure = failure_value(ActorDiedError(why, actor_id=hexed))
        self._loop.submit(self._kill, (actor_id, failure))

    def _kill(self, entry: tuple[bytes, Value | None]) -> None:
        actor_id, failure = entry
        self._loop.send(self._head, m.KillActor(actor_id, failure is not None))
        if failure is None:
            return
        line = self.lines.get(actor_id)
        if line is None:
            line = self.lines[actor_id] = ActorLine()
        if line.state != "DEAD":
            self.failed(actor_id, failure)

    def failed(self, actor_id: bytes, failure: Value) -> None:
        """The actor is dead, or will never be: so are all calls to it."""
        line = self.lines[actor_id]
        self._lived_in.pop(line.worker_id, None)
        creation = self._creation_over(actor_id)
        if creation is not None:
            creation.failed = True  # its arguments are let go: those that are still to come find nothing to fill
        for call in line.died(failure):
            self._completions.fail(call, failure, "ACTOR_DIED")
        if line.unheld:
            self.lines.pop(actor_id, None)  # the last of those calls may have held the last handle

    def out_of_scope(self, actor_id: bytes, class_name: str) -> None:
        """The last handle of an actor of ours has gone, and no call is under way that would keep one."""
        self._loop.send(self._head, m.ActorOutOfScope(actor_id))
        line = self.lines[actor_id]
        # From its death on it is forgotten here. Should one call it whose handle does not count (`get_actor`), the
        # head is asked anew.
        line.unheld = True
        creation = self.creations.get(actor_id)
        if line.state == "DEAD":
            del self.lines[actor_id]
        elif creation is not None and creation.missing:  # the head has not got it, so it cannot end it
            hexed = actor_id.hex()
            why = f"{class_name} (actor {hexed}) is dead: its last handle went out of scope"
            self.failed(actor_id, failure_value(ActorDiedError(why, actor_id=hexed)))

    def _restartable(self, actor_id: bytes) -> bool:
        creation = self.creations.get(actor_id)
        return creation is not None and creation.message.max_restarts != 0  # type: ignore[union-attr]

    def _creation_over(self, actor_id: bytes) -> Submission | None:
        """Let go of what ``__init__`` was given: it will not run again. Returns the creation, the first time."""
        creation = self.creations.pop(actor_id, None)
        if creation is not None:
            for object_id, _ in creation.uses:
                self._holdings.references.unuse(object_id)
        return creation

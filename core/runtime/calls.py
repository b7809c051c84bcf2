"""One caller's line to one actor: calls in the order of submission, whatever their arguments are waiting for. Pure.

    UNKNOWN --asked--> PENDING --ActorUpdate--> ALIVE --ActorUpdate--> RESTARTING --ActorUpdate--> ALIVE
       any of them --ActorUpdate, kill--> DEAD

Calls wait while the actor is not ALIVE, and behind a call whose arguments are not there yet. Those that were sent wait
for their answers. When the actor restarts, they are sent again, in their order and before all others, if they have
retries left (at least once), else they fail: they may have run (at most once). When it dies, all of them fail.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from ..protocol.specs import Value
from .tasks import Submission


class ActorLine:
    """What this process knows of an actor and has asked of it."""

    __slots__ = ("_inflight", "_waiting", "failure", "state", "unheld", "worker_id")

    def __init__(self) -> None:
        self.state = "UNKNOWN"
        self.worker_id = b""
        #: Why it is DEAD.
        self.failure: Value | None = None
        #: It is an actor of this process, and the last handle that counts has gone.
        self.unheld = False
        self._waiting: deque[Submission] = deque()
        self._inflight: OrderedDict[bytes, Submission] = OrderedDict()

    def __iter__(self) -> Iterator[tuple[Submission, bool]]:
        """Every call that has no answer, oldest first, and whether it has been sent."""
        for call in self._inflight.values():
            yield call, True
        for call in self._waiting:
            yield call, False

    def submit(self, call: Submission) -> None:
        self._waiting.append(call)

    def sendable(self) -> list[Submission]:
        """Calls that can go now, in order; they are in flight from here on."""
        ready: list[Submission] = []
        if self.state == "ALIVE":
            while self._waiting and not self._waiting[0].missing:
                call = self._waiting.popleft()
                self._inflight[call.task_id] = call
                ready.append(call)
        return ready

    def is_under_way(self, task_id: bytes) -> bool:
        """Whether the actor has been sent a call and has not answered."""
        return task_id in self._inflight

    def done(self, task_id: bytes) -> Submission | None:
        """The actor has answered."""
        return self._inflight.pop(task_id, None)

    def lost(self) -> list[Submission]:
        """The actor restarts: calls under way go back to the front of the line, or fail; returns those that fail."""
        self.state = "RESTARTING"
        failed: list[Submission] = []
        for call in reversed(self._inflight.values()):
            if call.retries:
                if call.stream is not None:
                    call.stream.again()
                call.retries -= 1 if call.retries > 0 else 0  # -1: for ever
                self._waiting.appendleft(call)
            else:
                failed.insert(0, call)
        self._inflight.clear()
        return failed

    def again(self, call: Submission) -> None:
        """A call that has failed and is to be tried again: next in line."""
        self._waiting.appendleft(call)

    def died(self, failure: Value) -> list[Submission]:
        """Returns the calls that fail with it, in order."""
        self.state, self.failure = "DEAD", failure
        failed = [*self._inflight.values(), *self._waiting]
        self._inflight.clear()
        self._waiting.clear()
        return failed

"""A process of a session, put together: one endpoint, one loop, what it holds and has submitted, what it runs.

    Process (driver or worker)
      Endpoint - Loop          messages, timers, who drives
      StoreClient - Holdings   shared memory, objects, references
      Submitter                tasks, actors, calls
      Executor                 workers only

The engine (engines/native.py) and the worker's `main` sit on top.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from .. import ids, refs
from ..environments.resolved import Environments
from ..errors import GetTimeoutError, HeadDiedError, ObjectStoreFullError, SessionError, ShoalError
from ..observing.measures import MEASURES
from ..protocol import messages as m
from ..refs import ObjectRef
from ..serialization import tensors, values
from ..serialization.functions import FunctionExporter, FunctionTable
from ..serialization.values import FAILURE
from ..session import Session
from ..store.arena import Arena
from ..store.client import StoreClient
from ..transport.endpoint import HEAD, Endpoint
from ..transport.loop import Loop
from . import context
from .execution import Executor
from .fullness import never_fits
from .groups import Groups
from .history import History
from .holdings import Holdings
from .inspecting import Inspector
from .objects import Wait
from .outlook import Outlook
from .submitting import Submitter
from .untold import Untold

#: Puts of small objects between two looks at what has been released.
_POSTS_PER_LOOK = 256
#: How long the head may take to tell what a process has died of whose links have ended.
_CAUSE_PATIENCE_S = 2.0


class Process:
    """One member of a session."""

    def __init__(
        self, session: Session, worker_id: ids.WorkerID, kind: str, arena: Arena, environment: bytes = b""
    ) -> None:
        """
        Args:
          kind: "driver" or "worker".
          arena: the session's shared memory, mapped.
          environment: what this process was started with, and its tasks and actors unless they ask for more.
        """
        self.session = session
        self.worker_id = worker_id
        self.node_id = b""
        self._executor: Executor | None = None
        self._arena = arena
        tensors.connect(arena.private_view)
        config = session.config
        self.environments = Environments(
            environment, os.path.join(session.directory, "environments"), limit_bytes=config.snapshot_bytes
        )
        self._endpoint = Endpoint(session.directory, worker_id, session.token, carrier=config.carrier)
        self._endpoint.on_unreachable = self._on_unreachable
        self._endpoint.on_lost = self._on_lost
        self.loop = Loop(self._endpoint, background_s=config.background_s)
        self.loop.on_fault = self._on_fault
        self._ids = ids.IdSource(worker_id, ids.JobID(session.job_id))
        self._store = StoreClient(
            arena,
            worker_id,
            request_region=self._request_region,
            release_region=self._release_region,
            slab_bytes=config.slab_bytes,
        )
        self.holdings = Holdings(
            worker_id,
            self.loop,
            self._store,
            head=HEAD,
            inline_bytes=config.inline_bytes,
            report_unhandled=bool(config.report_unhandled_errors),
        )
        Untold(self.loop, self.holdings.objects, self._store)
        self.history = History(config.history_tasks)
        self.submitter = Submitter(
            worker_id, self.loop, self.holdings, self.history, self._ids, head=HEAD, config=config, wait=self.wait
        )
        self.groups = Groups(worker_id, self.loop, self.holdings, self._ids, head=HEAD)
        self.outlook = Outlook(
            self.loop,
            ask=self.ask,
            lost=lambda: self.lost,
            history=self.history,
            holdings=self.holdings,
            config=config,
        )
        self.inspector = Inspector(
            self.loop,
            worker_id,
            kind,
            head=HEAD,
            history=self.history,
            holdings=self.holdings,
            submitter=self.submitter,
            groups=self.groups,
            metrics=MEASURES.rows,
        )
        #: What the node has in all, in 1/10_000, without placement groups; its labels.
        self.node_resources: dict[str, int] = {}
        self.node_labels: dict[str, str] = {}
        self._exporter = FunctionExporter()
        self._exported: set[bytes] = set()
        self._functions = FunctionTable()
        self._request_numbers = count(1)
        self._answers: dict[int, list[Any]] = {}
        #: Why nothing can work any more; None while all is well.
        self.lost: ShoalError | None = None
        #: The driver has asked for the end: the session's processes leave because they were told to.
        self.ending = False
        self.loop.on(m.Registered, self._on_registered)
        self.loop.on(m.Answer, self._on_answer)
        self.loop.on(m.ProcessDied, self._on_process_died)
        self.loop.send(HEAD, m.Register(worker_id, kind, os.getpid()))
        refs.connect(self.holdings)

    def start(self) -> None:
        """Join: wait until the head has welcomed us, then let the background thread stand by.

        Raises:
          SessionError: no answer in time.
        """
        if (
            not self.loop.drive_until(lambda: self.node_id or self.lost, self.session.config.start_timeout_s)
            or self.lost
        ):
            raise SessionError(self.lost or f"the head did not answer within {self.session.config.start_timeout_s:g} s")
        self.loop.start_background()

    def become_worker(self, on_actor: Callable[[str, object], None]) -> None:
        """Take work, before `start`. `on_actor` is called with class name and actor when it has become one."""
        self._executor = Executor(
            self.loop,
            self.holdings,
            self.history,
            fetch_function=self.fetch_function,
            head=HEAD,
            stall_s=self.session.config.stall_s,
            cancel_children=lambda task_id, force: self.submitter.cancellation.cancel_children(task_id, force=force),
            retire=self._retire_actor,
            on_actor=on_actor,
        )
        self.loop.on(m.LeaveIfIdle, self._on_leave_if_idle)
        MEASURES.on_change = self.outlook.measured

    def run(self) -> None:
        """Run work until told to leave."""
        assert self._executor is not None, "become_worker comes first"
        try:
            self._executor.run()
        finally:  # also when user code has raised SystemExit
            self.loop.post(lambda _: self.loop.send(HEAD, m.Farewell(self.inspector.farewell())), None)
            self.loop.flush()
            self._executor.let_actor_go()
            self.loop.post(lambda _: self.outlook.tell_measured(), None)
            self.loop.flush()

    def close(self) -> None:
        """Leave: no ref of this process counts any more, nothing can be waited for."""
        refs.connect(None)
        self._give_up(SessionError("shoal has been shut down"))
        self.loop.close()
        self._endpoint.close(linger_s=0.2)
        self._store.close()

    # ---- in any thread: objects

    def put(self, value: Any) -> ObjectRef:
        """Own a new object."""
        serialized = values.serialize(value)
        if len(self.loop.posts) > _POSTS_PER_LOOK or serialized.nbytes > self.session.config.inline_bytes:
            self.loop.flush()  # work off what has been released: its memory is warm
        return self.holdings.put(ids.object_id(self._ids.task(), 0), serialized)

    def get(self, refs_wanted: Sequence[ObjectRef], timeout_s: float | None) -> list[Any]:
        """Values in order; raises the first failure there is, even if others are still under way."""
        objects = self.holdings.objects
        missing = [ref for ref in refs_wanted if objects.value(ref.binary()) is None]
        if missing:
            if len(missing) < len(refs_wanted):
                self._raise_failure(refs_wanted)
            wait = Wait(objects, len(missing), failure_ends=True)
            if not self._wait("get", wait, missing, timeout_s):
                still = sum(1 for ref in missing if objects.value(ref.binary()) is None)
                raise GetTimeoutError(
                    f"{still} of {len(refs_wanted)} objects were not ready within {timeout_s:g} s, "
                    f"the first is {_first_pending(objects, missing)}; "
                    "shoal.util.state.explain(ref) says what it waits for"
                )
            if wait.seen < len(missing):
                self._raise_failure(missing)  # the one that has ended the wait is not the first in order
        return [self.holdings.load(ref) for ref in refs_wanted]

    def wait(
        self, refs_wanted: Sequence[ObjectRef], num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """(ready, not ready), both in the order given, at most `num_returns` ready."""
        ready, rest = self._sort_out(refs_wanted, num_returns)
        if len(ready) < num_returns:
            wait = Wait(self.holdings.objects, num_returns - len(ready), failure_ends=False)
            self._wait("wait", wait, rest, timeout_s)
            ready, rest = self._sort_out(refs_wanted, num_returns)
        return ready, rest

    def _sort_out(self, refs_wanted: Sequence[ObjectRef], num_returns: int) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """(ready, the rest). Looks no further than to the last that it needs: of a thousand, most often the first."""
        value = self.holdings.objects.value
        ready: list[ObjectRef] = []
        rest: list[ObjectRef] = []
        for position, ref in enumerate(refs_wanted, 1):
            if value(ref.binary()) is None:
                rest.append(ref)
            else:
                ready.append(ref)
                if len(ready) == num_returns:
                    rest += refs_wanted[position:]
                    break
        return ready, rest

    def _raise_failure(self, refs_wanted: Sequence[ObjectRef]) -> None:
        """Raise the first failure that there is."""
        for ref in refs_wanted:
            value = self.holdings.objects.value(ref.binary())
            if value is not None and value.kind == FAILURE:
                self.holdings.load(ref)

    def _wait(self, verb: str, wait: Wait, missing: Sequence[ObjectRef], timeout_s: float | None) -> bool:
        """Wait until `wait` is done, or `timeout_s` has passed (False). A task gives its CPU back meanwhile.

        Without a time-out this may last for ever, as long as the work behind the refs does; a death of any process on
        the way resolves them with an error.
        """
        watched = [(ref.binary(), ref.owner) for ref in missing]
        if timeout_s == 0.0:
            # A look: give what has arrived the chance to be seen, without asking anybody to make room.
            self.loop.post(self.holdings.expect_soon, watched)
            self.loop.look_in()
            return all(self.holdings.objects.value(object_id) is not None for object_id, _ in watched)
        self.loop.post(lambda _: self.holdings.await_all(wait, watched), None)
        task = context.current()
        blocks = task is not None and task.releases_cpu
        if blocks:
            self.loop.post(self._say_blocked, True)
        number = self.history.begin_wait(verb, task.task_id if task is not None else b"", watched)
        try:
            self.outlook.drive(verb, wait, watched, timeout_s)
        finally:
            self.history.end_wait(number)
            if blocks:
                self.loop.post(self._say_blocked, False)
                self.loop.soon()
            if wait.seen < len(watched):
                self.loop.post(lambda _: self.holdings.give_up(wait, watched), None)
        if self.lost and not wait.done:
            raise self.lost
        return wait.done

    def _say_blocked(self, blocked: bool) -> None:  # noqa: FBT001  posted with its argument
        self.loop.send(HEAD, m.Blocked(blocked))
        if blocked and self._executor is not None:
            self._executor.return_queue()

    # ---- in any thread: functions and questions

    def export(self, function: Callable[..., Any]) -> bytes:
        """The key of a function or class; its bytes are with the head when this returns."""
        exported = self._exporter.export(function)
        if exported.key not in self._exported:
            # Waits for the answer: a worker may ask the head for it before a message without answer would have arrived.
            self.ask(lambda number: m.ExportFunction(number, exported.key, exported.blob))
            self._exported.add(exported.key)
        return exported.key

    def fetch_function(self, key: bytes) -> Callable[..., Any]:
        """The function that was exported under `key`."""
        function = self._functions.get(key)
        if function is None:
            blob = self.ask(lambda number: m.FetchFunction(number, key))
            if blob is None:
                raise SessionError(f"function {key.hex()} is not known to the head")
            function = self._functions.load(key, blob)
        return function

    def is_canceled(self) -> bool:
        """Whether the call of an actor that the calling thread runs has been cancelled."""
        task = context.current()
        return task is not None and self._executor is not None and self._executor.is_canceled(task.task_id)

    def reserve_name(self, actor: m.CreateActor) -> Any:
        """Take the name of an actor to be created; None, or the parts of a handle to who has it."""
        return self.ask(lambda number: dataclasses.replace(actor, request=number))

    def new_group_id(self) -> ids.PlacementGroupID:
        return self._ids.group()

    def _retire_actor(self, actor_id: bytes) -> None:
        self.ask(lambda number: m.ActorExits(number, actor_id))

    def new_actor_id(self) -> ids.ActorID:
        return self._ids.actor()

    def ask(self, question: Callable[[int], m.Message], *, unless: Callable[[], Any] = lambda: False) -> Any:
        """Ask the head and wait for the answer.

        Args:
          unless: give up, with None, as soon as this is true.

        Raises:
          HeadDiedError: there will be none.
        """
        number = next(self._request_numbers)
        answer: list[Any] = []
        self._answers[number] = answer
        self.loop.post(lambda _: self.loop.send(HEAD, question(number)), None)
        timeout_s = self.session.config.request_timeout_s
        try:
            if not self.loop.drive_until(lambda: answer or self.lost or unless(), timeout_s) and not self.lost:
                raise HeadDiedError(f"the head has not answered a question for {timeout_s:g} s")
            if not answer and unless():
                return None
            if not answer:
                raise self.lost or SessionError("shoal has been shut down")
            return answer[0]
        finally:
            del self._answers[number]

    def _request_region(self, size_bytes: int) -> int:
        offset = self.ask(lambda number: m.RequestRegion(number, size_bytes))
        if offset is None and size_bytes > self._arena.size_bytes:
            raise ObjectStoreFullError(never_fits(size_bytes, self._arena.size_bytes))
        if offset is None:
            raise ObjectStoreFullError(
                f"the object store is full: of its {self._arena.size_bytes / 1e6:,.0f} MB, "
                f"no {size_bytes / 1e6:,.1f} MB in one piece are free; {self.outlook.held_by()}; "
                "drop refs to objects that are not needed, or give init a larger object_store_memory"
            )
        return int(offset)

    def _release_region(self, offset: int) -> None:
        if self.loop.driven_here:
            # At once: a request for a region may stand behind us in the posts, and is to get this one, which is warm.
            self.loop.send(HEAD, m.ReleaseRegion(offset))
        else:
            self.loop.post(lambda _: self.loop.send(HEAD, m.ReleaseRegion(offset)), None)
            self.loop.soon()

    # ---- in the driver: events

    def _on_registered(self, peer: bytes, message: m.Registered) -> None:
        self.node_id, self.node_labels = message.node_id, message.labels
        self.node_resources = message.resources

    def _on_leave_if_idle(self, peer: bytes, message: m.LeaveIfIdle) -> None:
        assert self._executor is not None, "only workers hear this"
        if self.holdings.owns_anything:
            self.loop.send(HEAD, m.Stay())
        else:
            self._executor.leave()

    def _on_answer(self, peer: bytes, message: m.Answer) -> None:
        answer = self._answers.get(message.request)
        if answer is not None:  # else the asker has given up
            answer.append(message.value)

    def _on_process_died(self, peer: bytes, message: m.ProcessDied) -> None:
        # Posted: we are in the middle of receiving, and first its last words are to be heard.
        self.loop.post(self._bury_announced, (message.worker_id, message.cause))

    def _bury_announced(self, entry: tuple[bytes, str]) -> None:
        self._bury(entry)
        # Posted, now that it counts as dead: what other threads have begun to read before, they have posted before.
        self.loop.post(self.holdings.inherited.tell, entry[0])

    def _on_unreachable(self, peer: bytes) -> None:
        # Posted: we are in the middle of sending.
        self.loop.post(self._bury, (peer, "no trace left"))

    def _on_lost(self, peer: bytes) -> None:
        """Its links have ended. The head will tell why, and until then nothing comes and nothing is sent."""
        if peer != HEAD:
            self.loop.after(_CAUSE_PATIENCE_S, lambda: self._bury((peer, "its connection lost")))

    def _bury(self, entry: tuple[bytes, str]) -> None:
        worker_id, cause = entry
        if self.holdings.is_dead(worker_id):
            return
        self.loop.hear_out(worker_id)
        self._endpoint.forget(worker_id)
        self.holdings.process_died(worker_id)
        self.submitter.process_died(worker_id, cause)
        if self._executor is not None:
            self._executor.process_died(worker_id)

    def head_died(self, why: str) -> None:
        """The session's processes have ended; everything that waits fails with this."""
        self._give_up(SessionError("shoal has been shut down") if self.ending else HeadDiedError(why))

    def _on_fault(self, error: BaseException) -> None:
        self._give_up(SessionError(f"shoal has failed in its background thread: {type(error).__name__}: {error}"))

    def _give_up(self, error: ShoalError) -> None:
        if self.lost is None:
            self.lost = error
            self.holdings.fail_futures(error)


def run_worker(
    session: Session,
    worker_id: bytes,
    arena: Arena,
    environment: bytes,
    connect: Callable[[Process], None],
    on_actor: Callable[[str, object], None],
) -> None:
    """A worker's life, in a process that was forked for it.

    Args:
      environment: what it was started with.
      connect: makes the public API of this process speak to its `Process`.
      on_actor: called with class name and actor when it has become one.
    """
    process = Process(session, ids.WorkerID(worker_id), "worker", arena, environment)
    process.become_worker(on_actor)
    connect(process)
    process.start()
    try:
        process.run()
    finally:  # also when user code has raised SystemExit: the process ends as any program does
        atexit._run_exitfuncs()  # noqa: SLF001  os._exit, by which forked processes leave, does not
        process.close()


def _first_pending(objects: Any, missing: Sequence[ObjectRef]) -> ObjectRef | None:
    return next((ref for ref in missing if objects.value(ref.binary()) is None), None)

"""The inline engine: a session without processes, for debugging and for fast tests (``init(engine="inline")``).

Work runs in the thread that submits it, before ``.remote()`` returns: a traceback and a debugger show who asked for it,
and the same program does the same things in the same order every time. Everything else is as on native: what goes in
and out passes through the same serialiser (fresh containers, read-only arrays, functions frozen when first submitted),
and errors, names, counts of refs, ends of actors and demands that cannot be met come out the same.

    .remote() -> tables (session.py) -> take what can run (turns.py, work.py), run it (runs.py), tell
                 the tables, take what has become possible, ...
    get, wait -> the value is there (objects.py), as a rule. If not: help, wait for other threads, or say that
                 nobody can make it

Where one process shows: only work that waits for a busy actor (called from inside its own method), for resources that
actors hold, or for other threads is ever pending. A task or call that would end its process by SystemExit ends as
native's would; one that really kills the process kills all. A killed actor's running method cannot be stopped: it goes
on, and its result is dropped. KeyboardInterrupt fails the work that it strikes and goes on to who submitted it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

from ... import ids, refs
from ...environments.resolved import Environment, Environments
from ...environments.runtime_env import WantedEnvironment
from ...errors import (
    ActorHandleNotFoundError,
    GetTimeoutError,
    PendingCallsLimitExceeded,
)
from ...observing.measures import MEASURES
from ...options import ActorOptions, Destination, TaskOptions
from ...protocol.specs import WireMethod
from ...refs import ObjectRef
from ...resources import ResourceSet
from ...runtime import context
from ...runtime.arguments import pack
from ...runtime.concurrency import lanes_wanted
from ...runtime.equipment import BARE
from ...runtime.history import History
from ...runtime.questions import Question
from ...runtime.special_methods import exit_actor
from ...scheduling.labels import NODE_ID
from ...scheduling.machine import ADDRESS, CLUSTER_ADDRESS
from ...serialization import values
from ...serialization.functions import FunctionExporter
from ...serialization.values import FAILURE
from .. import one_node
from ..base import (
    ActorDescription,
    ActorIdentity,
    GroupDescription,
    NodeDescription,
    Place,
    Returns,
    Stock,
    Survey,
    actor_name_taken,
    group_name_taken,
)
from .runs import Runs
from .session import InlineSession
from .survey import InlineInspector
from .turns import Turns
from .work import Actor


class InlineEngine:
    """The session as this process sees it. `base.Engine` and, for the refs of this process, `refs.RefEvents`."""

    def __init__(
        self,
        total: Mapping[str, int],
        *,
        namespace: str,
        job_id: bytes,
        store_bytes: int,
        inline_bytes: int,
        history_tasks: int,
        report_unhandled: bool,
        environment: WantedEnvironment | None = None,
        gpus: Sequence[str] = (),
        gpus_listed: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
          total: resources of the session, in 1/10_000.
          gpus: ids of the GPUs among them; gpus_listed: see `base.Place`.
          labels: of the node; its id is added.
          store_bytes: room for values above `inline_bytes`, together.
          history_tasks: finished work to remember.
          report_unhandled: log the exceptions of work whose refs go before anybody has asked for them.
          environment: the session's ``runtime_env``: set around work, and taken back after it.
        """
        self._environments = {b"": Environments(b"", "", limit_bytes=0)}
        self._environment = self._environments[b""].resolve(environment)
        self._namespace = namespace
        self._node_id = ids.new_node_id()
        self._task_worker = ids.new_worker_id()  # where tasks say that they run
        self._tables = InlineSession(
            total,
            job_id=job_id,
            store_bytes=store_bytes,
            inline_bytes=inline_bytes,
            report_unhandled=report_unhandled,
            wait=lambda refs, num_returns, timeout_s: self.wait(refs, num_returns=num_returns, timeout_s=timeout_s),
            settled=lambda ref: self._turns.future(ref, loaded=False),
            gpus=gpus,
        )
        self._total = dict(total)
        self._gpus_listed = gpus_listed
        self._labels = {**(labels or {}), NODE_ID: self._node_id.hex()}
        self.objects = self._tables.objects
        self.released = self.objects.released
        self._schedule = self._tables.schedule
        self._history = History(history_tasks)
        self._runs = Runs(self.objects, self._history, is_cancelled=lambda work: work.task_id in self._tables.told)
        self._inspector = InlineInspector(self._tables, self._history, self._node_id, MEASURES.rows)
        self._exporter = FunctionExporter()
        self._turns = Turns(self._tables, self._runs, self._history)
        refs.connect(self)

    # ---- base.Engine

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> Returns:
        exported = self._exporter.export(function)
        packed = pack(args, kwargs)
        environment = self._resolve(options.runtime_env)
        demand = ResourceSet(options.resources)
        with self._turns.changing():
            made = self._tables.submit(
                options.name or function.__name__,
                exported,
                packed,
                num_returns=options.num_returns,
                demand=demand,
                retries=options.max_retries,
                retry_on=options.retry_on,
                environment=environment,
                captures=options.destination.captures,
                refused=self._refusal(options.destination),
            )
        self._turns.run_ready()
        return made

    def create_actor(
        self,
        cls: type,
        methods: Mapping[str, WireMethod],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: ActorOptions,
    ) -> ActorIdentity:
        exported = self._exporter.export(cls)
        packed = pack(args, kwargs)
        namespace = options.namespace or self._namespace
        environment = self._resolve(options.runtime_env)
        if environment and lanes_wanted(cls, options.max_concurrency, options.concurrency_groups):
            raise ValueError(
                f"{cls.__name__} runs several calls at once, and the inline engine has one process: it cannot give "
                "them an environment of their own (runtime_env); use the native engine"
            )
        with self._turns.changing():
            existing = self._schedule.named(options.name, namespace) if options.name else None
            if existing is not None:
                if options.get_if_exists:
                    return _weak(existing)
                raise actor_name_taken(existing.name, namespace)
            refused = self._refusal(options.destination)
            actor, ref = self._tables.create_actor(exported, methods, packed, namespace, options, environment, refused)
        self._turns.run_ready()
        return ActorIdentity(actor.actor_id, actor.class_name, actor.methods, ref, actor.options.max_pending_calls)

    def call(
        self, actor: ActorIdentity, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, how: WireMethod
    ) -> Returns:
        packed = pack(args, kwargs)
        with self._turns.changing():
            self._check_pending(actor, method)
            made = self._tables.call(actor.actor_id, actor.class_name, method, packed, how, actor.ref)
        self._turns.run_ready()
        return made

    def get(self, refs: Sequence[ObjectRef], *, timeout_s: float | None) -> list[Any]:
        objects = self.objects

        def failed() -> ObjectRef | None:
            found = [(ref, objects.value(ref.binary())) for ref in refs]
            return next((ref for ref, value in found if value is not None and value.kind == FAILURE), None)

        def pending() -> list[ObjectRef]:
            return [ref for ref in refs if objects.value(ref.binary()) is None and ref.binary() in objects]

        if not self._turns.wait_until("get", lambda: not pending() or failed() is not None, timeout_s, pending):
            missing = pending()
            raise GetTimeoutError(
                f"{len(missing)} of {len(refs)} objects were not ready within {timeout_s:g} s, "
                f"the first is {missing[0]}; shoal.util.state.explain(ref) says what it waits for"
            )
        broken = failed()
        if broken is not None:
            self._runs.load(broken)
        return [self._runs.load(ref) for ref in refs]

    def put(self, value: Any) -> ObjectRef:
        serialized = values.serialize(value)
        with self._turns.changing():
            ref = self._tables.put(serialized)
        self._turns.run_ready()
        return ref

    def wait(
        self, refs: Sequence[ObjectRef], *, num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        objects = self.objects

        def is_ready(ref: ObjectRef) -> bool:
            return objects.value(ref.binary()) is not None or ref.binary() not in objects

        self._turns.wait_until(
            "wait",
            lambda: sum(map(is_ready, refs)) >= num_returns,
            timeout_s,
            lambda: [ref for ref in refs if not is_ready(ref)],
        )
        ready: list[ObjectRef] = []
        rest: list[ObjectRef] = []
        for ref in refs:
            (ready if len(ready) < num_returns and is_ready(ref) else rest).append(ref)
        return ready, rest

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        with self._turns.changing():
            self._tables.cancel(ref.binary(), force=force)
            self._turns.changed()
        self._turns.run_ready()

    def is_canceled(self) -> bool:
        task = context.current()
        return task is not None and task.task_id in self._tables.told

    def _check_pending(self, identity: ActorIdentity, method: str) -> None:
        actor, limit = self._schedule.actors.get(identity.actor_id), identity.max_pending_calls
        if actor is None or limit < 0 or actor.life.state == "PENDING":
            return
        count = len(actor.line) + len(actor.under_way)
        if count >= limit:
            raise PendingCallsLimitExceeded(
                f"{identity.class_name}.{method}(): {count} calls to the actor (actor {identity.actor_id.hex()}) have "
                f"not been answered, and its max_pending_calls is {limit}: get some results first"
            )

    def kill(self, actor: ActorIdentity, *, no_restart: bool) -> None:
        with self._turns.changing():
            found = self._schedule.actors.get(actor.actor_id)
            if found is None:
                raise ActorHandleNotFoundError(
                    f"{actor.class_name} (actor {actor.actor_id.hex()}) is not known to this session: "
                    "was it created before shutdown() and another init()?"
                )
            self._tables.kill(found, no_restart=no_restart)
            self._turns.changed()
        self._turns.run_ready()

    def exit_actor(self) -> NoReturn:
        exit_actor()

    def find_actor(self, name: str, namespace: str | None) -> ActorIdentity | None:
        with self._turns.changing():
            found = self._schedule.named(name, namespace or self._namespace)
        return None if found is None else _weak(found)

    def describe_actor(self, actor_id: bytes) -> ActorDescription | None:
        with self._turns.changing():
            actor = self._schedule.actors.get(ids.ActorID(actor_id))
        return None if actor is None else ActorDescription(_weak(actor), actor.name, actor.namespace, actor.restarts)

    def place(self) -> Place:
        task = context.current()
        actor = self._schedule.actors.get(task.actor_id) if task else None
        return Place(
            job_id=self._tables.job_id,
            node_id=self._node_id,
            worker_id=actor.worker_id if actor else self._task_worker if task else self._tables.me,
            task_id=task.task_id if task else b"",
            task_name=task.name if task else "",
            actor_id=task.actor_id if task else b"",
            namespace=self._namespace,
            equipment=task.equipment if task else BARE,
            gpus_listed=self._gpus_listed,
            node_labels=self._labels,
        )

    def create_group(
        self,
        bundles: Sequence[Mapping[str, int]],
        *,
        strategy: str,
        name: str,
        detached: bool,
        selectors: Sequence[Mapping[str, str]],
        near: bytes,
    ) -> ids.PlacementGroupID:
        namespace, labels = self._namespace, self._labels
        one_node.check_group(bundles, strategy=strategy, selectors=selectors, total=self._total, labels=labels)
        with self._turns.changing():
            group_id = self._tables.create_group(
                bundles, strategy=strategy, name=name, namespace=namespace, detached=detached
            )
        if group_id is None:
            raise group_name_taken(name, namespace)
        return group_id

    def remove_group(self, group_id: bytes) -> None:
        with self._turns.changing():
            self._tables.remove_group(group_id)
            self._turns.changed()
        self._turns.run_ready()

    def group_ready(self, group_id: bytes, value: Any) -> ObjectRef:
        serialized = values.serialize(value).owned()
        with self._turns.changing():
            return self._tables.group_ready(group_id, serialized)

    def describe_groups(self, *, group_id: bytes = b"", name: str = "") -> list[GroupDescription]:
        with self._turns.changing():
            rows = self._tables.groups.describe(group_id, name, self._namespace)
        return [one_node.group_of(*row, node_id=self._node_id) for row in rows]

    def _refusal(self, destination: Destination) -> str:
        """Why the node does not suit work; empty if it does."""
        return "" if destination.rule is None else destination.rule.mismatch(self._labels)

    def _inherited(self) -> bytes:
        """The environment of the work that the caller is part of; the session's in the driver's own code."""
        return self._environment if context.current() is None else self._runs.environment.get()

    def _resolve(self, wanted: WantedEnvironment | None) -> bytes:
        """The environment of new work."""
        inherited = self._inherited()
        if wanted is None:
            return inherited
        if inherited not in self._environments:
            self._environments[inherited] = Environments(inherited, "", limit_bytes=0)
        return self._environments[inherited].resolve(wanted)

    def environment(self) -> Mapping[str, Any]:
        return Environment.decode(self._inherited()).describe()

    def directory(self) -> str:
        return ""

    def whereabouts(self) -> Mapping[str, Any]:
        return {"object_store_address": "", "raylet_socket_name": "", "session_dir": ""}

    def address(self) -> str:
        return CLUSTER_ADDRESS

    def nodes(self) -> list[NodeDescription]:
        return [NodeDescription(self._node_id, ADDRESS, socket.gethostname(), self.stock().total, self._labels)]

    def stock(self) -> Stock:
        with self._turns.changing():
            return Stock(self._schedule.total.parts(), self._schedule.available.parts())

    def named_actors(self) -> None:
        return None

    def trace(self) -> None:
        return None

    def survey(self, question: Question) -> Survey:
        with self._turns.changing():
            if question.subject == "jobs":
                workers = self._inspector.survey(Question("workers")).facts
                return Survey([one_node.job_of(workers, self.place())], {}, [], is_all=True)
            return self._inspector.survey(question)

    def explain(self, ref: ObjectRef) -> str:
        with self._turns.changing():
            return self._tables.reason(ref)

    def shutdown(self) -> None:
        """Everything that waits fails; actors are dropped; refs of this session count no more."""
        refs.connect(None)
        self._turns.close()

    # ---- refs.RefEvents; `released` is the objects'

    def received(self, object_id: bytes, owner: bytes) -> None:
        self.objects.received(object_id)

    def received_all(self, object_ids: list[bytes], owner: bytes) -> None:
        for object_id in object_ids:
            self.objects.received(object_id)

    def escaped(self, ref: ObjectRef) -> None:
        """Pickled by a foreign pickler: nobody can count the copies, so the object stays, as in Ray."""
        self.objects.received(ref.binary())

    def awaited(self, ref: ObjectRef, future: object) -> None:
        """Nobody asks later what the ref waits for: it has its value, as a rule."""

    def future(self, ref: ObjectRef) -> Future[Any]:
        """A future of the ref's value: done, as a rule. Callbacks may use the API."""
        return self._turns.future(ref)


def _weak(actor: Actor) -> ActorIdentity:
    """Of an actor that was looked up: nothing in it keeps the actor alive."""
    return ActorIdentity(actor.actor_id, actor.class_name, actor.methods, None, actor.options.max_pending_calls)

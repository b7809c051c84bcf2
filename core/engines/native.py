"""The engine of our own processes: a thin layer over `runtime.process.Process`."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from .. import ids
from ..cluster import Cluster
from ..environments.resolved import Environment
from ..errors import ActorHandleNotFoundError
from ..node import lifeline
from ..options import ActorOptions, Destination, TaskOptions
from ..protocol import messages as m
from ..protocol.specs import NO_VALUE, WireMethod
from ..refs import ObjectRef
from ..runtime import context
from ..runtime.arguments import pack
from ..runtime.equipment import BARE
from ..runtime.process import Process
from ..runtime.questions import Question
from ..runtime.special_methods import exit_actor
from ..scheduling.machine import ADDRESS, CLUSTER_ADDRESS
from ..serialization import values
from ..serialization.values import FAILURE
from ..transport.endpoint import HEAD
from . import one_node
from .base import (
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


class NativeEngine:
    """The session as this process, a driver or a worker, sees it."""

    def __init__(self, process: Process, cluster: Cluster | None = None) -> None:
        """
        Args:
          cluster: the processes to stop at the end; None in a worker.
        """
        self._process = process
        self._cluster = cluster
        self._namespace = process.session.namespace
        #: Becomes readable when the zygote ends; None once it is closed, or where the system has no such thing.
        self._zygote_watch: int | None = None

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: TaskOptions
    ) -> Returns:
        process = self._process
        key = process.export(function)
        environment = process.environments.resolve(options.runtime_env, options.threads)
        return process.submitter.submit_task(
            key,
            options.name or function.__name__,
            pack(args, kwargs),
            num_returns=options.num_returns,
            shape=process.submitter.shape(
                options.resources,
                environment,
                captures=options.destination.captures,
                refused=self._refusal(options.destination),
            ),
            retries=options.max_retries,
            retry_on=options.retry_on,
            backpressure=options.backpressure,
            max_calls=options.max_calls,
        )

    def create_actor(
        self,
        cls: type,
        methods: Mapping[str, WireMethod],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: ActorOptions,
    ) -> ActorIdentity:
        process = self._process
        namespace = options.namespace or self._namespace
        message = m.CreateActor(
            request=0,
            actor_id=process.new_actor_id(),
            class_key=process.export(cls),
            class_name=cls.__name__,
            methods=dict(methods),
            name=options.name or "",
            namespace=namespace,
            detached=options.lifetime == "detached",
            required=dict(options.required),
            placement=dict(options.placement),
            max_restarts=options.max_restarts,
            max_concurrency=options.max_concurrency,
            groups=dict(options.concurrency_groups),
            environment=process.environments.resolve(options.runtime_env, options.threads),
            max_pending_calls=options.max_pending_calls,
            arguments=NO_VALUE,
            arguments_object=b"",
            slots=[],
            captures=options.destination.captures,
            refused=self._refusal(options.destination),
            buffers=[],
        )
        packed = pack(args, kwargs)
        if options.name:
            existing = process.reserve_name(message)
            if existing is not None:
                if options.get_if_exists:
                    return _weak(existing)
                raise actor_name_taken(options.name, namespace)
        ref = process.submitter.create_actor(message, packed, detached=message.detached)
        return ActorIdentity(message.actor_id, message.class_name, message.methods, ref, message.max_pending_calls)

    def call(
        self, actor: ActorIdentity, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, how: WireMethod
    ) -> Returns:
        num_returns, retries, retry_exceptions, group, backpressure = how
        return self._process.submitter.call(
            actor.actor_id,
            f"{actor.class_name}.{method}",
            method,
            pack(args, kwargs),
            num_returns=num_returns,
            handle=actor.ref,
            group=group,
            retries=retries,
            retry_on=(Exception,) if retry_exceptions else (),
            backpressure=backpressure,
            limit=actor.max_pending_calls,
        )

    def get(self, refs: Sequence[ObjectRef], *, timeout_s: float | None) -> list[Any]:
        return self._process.get(refs, timeout_s)

    def put(self, value: Any) -> ObjectRef:
        return self._process.put(value)

    def wait(
        self, refs: Sequence[ObjectRef], *, num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        return self._process.wait(refs, num_returns, timeout_s)

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool) -> None:
        self._process.submitter.cancellation.cancel(ref, force=force, recursive=recursive)

    def is_canceled(self) -> bool:
        return self._process.is_canceled()

    def kill(self, actor: ActorIdentity, *, no_restart: bool) -> None:
        submitter = self._process.submitter
        if submitter.line(actor.actor_id) is None and not self._is_of_this_session(actor.actor_id):
            raise ActorHandleNotFoundError(
                f"{actor.class_name} (actor {actor.actor_id.hex()}) is not known to this session: "
                "was it created before shutdown() and another init()?"
            )
        submitter.actors.kill(actor.actor_id, actor.class_name, no_restart=no_restart)

    def _is_of_this_session(self, actor_id: bytes) -> bool:
        """Whether the process that created it is, or was, one of this session's."""
        facts = self._process.outlook.survey(Question("workers", target=b""))[0]
        return ids.creator_of(actor_id).hex() in {row["worker_id"] for row in facts}

    def exit_actor(self) -> NoReturn:
        exit_actor()

    def find_actor(self, name: str, namespace: str | None) -> ActorIdentity | None:
        found = self._process.ask(lambda number: m.FindActor(number, name, namespace or self._namespace))
        return None if found is None else _weak(found)

    def describe_actor(self, actor_id: bytes) -> ActorDescription | None:
        facts = self._process.ask(lambda number: m.DescribeActor(number, actor_id))
        if facts is None:
            return None
        *parts, name, namespace, restarts = facts
        return ActorDescription(_weak(tuple(parts)), name, namespace, restarts)

    def place(self) -> Place:
        process, task = self._process, context.current()
        return Place(
            job_id=process.session.job_id,
            node_id=process.node_id,
            worker_id=process.worker_id,
            task_id=task.task_id if task else b"",
            task_name=task.name if task else "",
            actor_id=task.actor_id if task else b"",
            namespace=self._namespace,
            equipment=task.equipment if task else BARE,
            gpus_listed=process.session.gpus_listed,
            node_labels=process.node_labels,
        )

    def environment(self) -> Mapping[str, Any]:
        return Environment.decode(self._process.environments.inherited).describe()

    def directory(self) -> str:
        return self._process.session.directory

    def whereabouts(self) -> Mapping[str, Any]:
        directory = self.directory()
        return {"object_store_address": directory, "raylet_socket_name": directory, "session_dir": directory}

    def address(self) -> str:
        return CLUSTER_ADDRESS

    def nodes(self) -> list[NodeDescription]:
        node_id, total, _ = self._process.ask(m.DescribeNode)
        directory = self._process.session.directory
        sockets = {"ObjectStoreSocketName": directory, "RayletSocketName": directory}
        labels = self._process.node_labels
        return [NodeDescription(node_id, ADDRESS, socket.gethostname(), total, labels, further=sockets)]

    def stock(self) -> Stock:
        _, total, available = self._process.ask(m.DescribeNode)
        return Stock(total, available)

    def named_actors(self) -> None:
        return None

    def trace(self) -> None:
        return None

    def survey(self, question: Question) -> Survey:
        if question.subject == "jobs":
            workers = self._process.outlook.survey(Question("workers", target=b""))[0]
            return Survey([one_node.job_of(workers, self.place())], {}, [], is_all=True)
        facts, answers, silent, is_all = self._process.outlook.survey(question)
        for row in facts:
            if "failure" in row:  # of an actor
                row["death_cause"] = _death_cause(row)
        return Survey(facts, answers, silent, is_all)

    def explain(self, ref: ObjectRef) -> str:
        process = self._process
        value = process.holdings.objects.value(ref.binary())
        if value is not None:
            return f"{ref!r} is there" + (": it is an error, which get raises" if value.kind == FAILURE else "")
        return process.outlook.reason([(ref.binary(), ref.owner)]).text

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
        process, group_id = self._process, self._process.new_group_id()
        one_node.check_group(
            bundles,
            strategy=strategy,
            selectors=selectors,
            total=process.node_resources,
            labels=process.node_labels,
        )
        parts = [dict(bundle) for bundle in bundles]
        message = m.CreateGroup(0, group_id, name, self._namespace, strategy, parts, detached)
        if name and not process.ask(lambda number: dataclasses.replace(message, request=number)):
            raise group_name_taken(name, self._namespace)
        process.groups.created(message, announced=bool(name))
        return group_id

    def remove_group(self, group_id: bytes) -> None:
        self._process.groups.remove(group_id)

    def group_ready(self, group_id: bytes, value: Any) -> ObjectRef:
        return self._process.groups.ready(group_id, values.serialize(value))

    def describe_groups(self, *, group_id: bytes = b"", name: str = "") -> list[GroupDescription]:
        rows = self._process.ask(lambda number: m.DescribeGroups(number, group_id, name, self._namespace))
        return [one_node.group_of(*row, node_id=self._process.node_id) for row in rows]

    def _refusal(self, destination: Destination) -> str:
        """Why the node does not suit work; empty if it does."""
        return "" if destination.rule is None else destination.rule.mismatch(self._process.node_labels)

    def shutdown(self) -> None:
        process, cluster = self._process, self._cluster
        try:
            if cluster is not None:
                process.ending = True
                process.loop.post(lambda _: process.loop.send(HEAD, m.Shutdown()), None)
                process.loop.flush()
                process.loop.drive_until(lambda: process.lost, cluster.session.config.stop_timeout_s)
        finally:
            try:
                process.close()
            finally:
                self._end_watch()  # a session that ends too slowly has not been seen to end
                if cluster is not None:
                    cluster.stop()

    def watch_cluster(self) -> None:
        """Notice when the session's processes end without having been asked to. Called once, by the driver."""
        assert self._cluster is not None, "workers die with the session"
        process, zygote = self._process, self._cluster.zygote

        def ended() -> None:
            process.head_died(_how_it_ended(zygote.wait()))

        descriptor = self._zygote_watch = lifeline.watch_process(zygote.pid)
        if descriptor is None:
            lifeline.wait_in_thread(
                lambda: zygote.poll() is not None, lambda: process.loop.submit(lambda _: ended(), None)
            )
            return

        def readable() -> None:
            process.loop.unwatch(descriptor)
            self._end_watch()
            ended()

        process.loop.watch(descriptor, readable)

    def _end_watch(self) -> None:
        if self._zygote_watch is not None:
            os.close(self._zygote_watch)
            self._zygote_watch = None


def _weak(parts: tuple[bytes, str, Mapping[str, WireMethod], int]) -> ActorIdentity:
    """An actor as the head describes it; nothing here keeps it alive."""
    actor_id, class_name, methods, max_pending_calls = parts
    return ActorIdentity(actor_id, class_name, methods, None, max_pending_calls)


def _death_cause(row: dict[str, Any]) -> str | None:
    """The text of the error that a dead actor's calls get."""
    failure = row.pop("failure")
    if failure is None or row["state"] != "DEAD":
        return None
    return str(values.deserialize(FAILURE, *failure))


def _how_it_ended(code: int) -> str:
    """Words for a session that has ended unasked, by the zygote's exit code."""
    if code < 0:
        who, number = "the zygote", -code
    elif code > 128:
        who, number = "the head", code - 128
    else:
        return f"the session's processes have ended: the head has crashed (exit code {code})"
    return f"the session's processes have ended: {who} was killed by {signal.Signals(number).name}"

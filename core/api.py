"""The public verbs: get, put, wait, kill, get_actor, and init and shutdown (`starting`). Ray's names, arguments and
corner cases.

They check what they are given and hand it to the current engine. One engine at a time; the first call that needs one
starts it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import Any, NoReturn, overload

from . import refs as refs_module
from .engines import current
from .engines.base import Engine
from .generators import ObjectRefGenerator
from .initialization.starting import init, is_initialized, shutdown, start_on_demand
from .refs import ObjectRef, object_ids
from .remote import ActorHandle, identity_of, remote, weak_handle
from .runtime import context

__all__ = [
    "ActorHandle",
    "ObjectRef",
    "ObjectRefGenerator",
    "cancel",
    "exit_actor",
    "get",
    "get_actor",
    "init",
    "is_initialized",
    "kill",
    "put",
    "remote",
    "shutdown",
    "wait",
]

@overload
def get(refs: ObjectRef, *, timeout: float | None = None) -> Any: ...
@overload
def get(refs: list[ObjectRef], *, timeout: float | None = None) -> list[Any]: ...
def get(refs: ObjectRef | list[ObjectRef], *, timeout: float | None = None) -> Any:
    """The value of a ref, or the values of a list of refs in order; waits until they are there.

    Large arrays lie in shared memory: they are not copied, and read-only.

    Args:
      refs: a ref, or a list of them.
      timeout: seconds; None (or a negative number, as on Ray) waits as long as it takes, 0 looks once.

    Raises:
      TaskError: the task failed; the error is an instance of what it raised, too (``except ValueError`` works). From a
        list, the first failure is raised as soon as it is known.
      GetTimeoutError: not all were ready in time.
      WorkerCrashedError, ActorDiedError, ObjectLostError: the process that should have made or kept the value has died.
      TypeError, ValueError: `refs` is neither.
    """
    if timeout is not None and timeout < 0:
        timeout = None
    if isinstance(refs, ObjectRef):
        return current.engine().get([refs], timeout_s=timeout)[0]
    if isinstance(refs, ObjectRefGenerator):
        return refs  # as Ray does: its items are refs of their own
    if not isinstance(refs, list):
        raise ValueError(f"get takes an ObjectRef or a list of them, not {type(refs).__name__}")
    _check_refs("get", refs)
    return current.engine().get(refs, timeout_s=timeout) if refs else []


def put(value: Any) -> ObjectRef:
    """Store a value once, to hand its ref to many.

    Raises:
      TypeError: it is a ref already, or cannot be pickled.
      ObjectStoreFullError: it is too large for what is left.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("put takes a value, not an ObjectRef: pass the ref itself on")
    return current.engine().put(value)


def wait(
    refs: Sequence[Any],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,  # noqa: ARG001
) -> tuple[list[Any], list[Any]]:
    """Wait until `num_returns` of the refs are ready: finished, or failed.

    Args:
      refs: a list without duplicates, of ObjectRefs and ObjectRefGenerators; a generator is ready when its next item
        is, or its end.
      num_returns: how many to wait for; no more are returned as ready.
      timeout: seconds; then fewer may be ready.
      fetch_local: accepted for Ray's sake: on one machine every ready object is here.

    Returns:
      (ready, not ready), each in the order of `refs`.

    Raises:
      TypeError, ValueError: `refs` is no list of distinct refs, or a number is out of range.
    """
    if not isinstance(refs, list):
        raise TypeError(f"wait takes a list of ObjectRefs, not {type(refs).__name__}")
    kinds = set(map(type, refs))  # once: who waits for 1000 refs one by one spends most of the time on such looks
    if ObjectRefGenerator in kinds:
        return _wait_with_generators(refs, num_returns, timeout)
    if kinds != {ObjectRef}:
        _check_refs("wait", refs)
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must not be negative, it is {timeout}")
    if not refs:
        return [], []
    if len(set([*object_ids(refs)])) != len(refs):  # noqa: C405  of a list, whose length is known: 25 % quicker
        raise ValueError("wait takes every ref once; this list has duplicates")
    if not 0 < num_returns <= len(refs):
        raise ValueError(f"num_returns must be between 1 and the number of refs, {len(refs)}, not {num_returns}")
    return current.engine().wait(refs, num_returns=num_returns, timeout_s=timeout)


def _wait_with_generators(
    waitables: Sequence[Any], num_returns: int, timeout: float | None
) -> tuple[list[Any], list[Any]]:
    """`wait`, with the ref of its next item in place of each generator."""
    refs = [item._peek() if isinstance(item, ObjectRefGenerator) else item for item in waitables]  # noqa: SLF001
    ready, _ = wait(refs, num_returns=num_returns, timeout=timeout)
    found = set(ready)
    pairs = list(zip(waitables, refs, strict=True))
    return [item for item, ref in pairs if ref in found], [item for item, ref in pairs if ref not in found]


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor's process at once; its calls fail with ActorDiedError. Killing a dead actor does nothing.

    Args:
      no_restart: False lets it be restarted, if it has restarts left.

    Raises:
      ValueError: `actor` is no handle.
    """
    current.engine().kill(identity_of(actor, "kill"), no_restart=no_restart)


def cancel(ref: ObjectRef | ObjectRefGenerator, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel a task or a call: its ``get`` raises TaskCancelledError. One that has finished stays as it is.

    One that has not begun never will. A task that runs gets KeyboardInterrupt in its main thread, a coroutine of an
    actor ``asyncio.CancelledError``; another call of an actor is only told, if it asks
    ``get_runtime_context().is_canceled()``. Cancelled work is not retried.

    Args:
      force: end the worker's process (WorkerCrashedError); not for calls of actors.
      recursive: cancel also what it has submitted.

    Raises:
      TypeError: `ref` is no ref.
      ValueError: `force` on a call of an actor.
    """
    if isinstance(ref, ObjectRefGenerator):
        ref = ref.completed()
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"cancel takes an ObjectRef, not {type(ref).__name__} {ref!r}")
    current.engine().cancel(ref, force=force, recursive=recursive)


def exit_actor() -> NoReturn:
    """End the actor that runs this, after the call under way; whoever waits for that gets ActorDiedError.

    Handlers of `atexit` run. The actor is not restarted.

    Raises:
      TypeError: the caller is not in an actor.
    """
    engine = current.running()
    if engine is None:
        raise TypeError("exit_actor can only be called in a method of an actor; there is no session here")
    engine.exit_actor()


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A handle to a named actor. It does not keep the actor alive.

    Raises:
      ValueError: the name is empty, or no living actor has it.
    """
    if not name or type(name) is not str:
        raise ValueError(f"get_actor takes the name of an actor, not {name!r}")
    return weak_handle(current.engine().find_actor(name, namespace), name, namespace)


def connect(engine: Engine) -> None:
    """Make this process speak to `engine`: how a worker begins."""
    current.set_engine(engine)


def _check_refs(verb: str, refs: Sequence[object]) -> None:
    if set(map(type, refs)) <= {ObjectRef}:
        return  # nearly always, and five times as fast as the loop
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"{verb} takes ObjectRefs; this list holds {type(ref).__name__} {ref!r}")


def _forget_session() -> None:
    """In a process that was forked from this one: the session is its parent's. It may start one of its own."""
    current.forget_in_fork()
    refs_module.connect(None)
    context.enter(None)


current.on_demand(start_on_demand)
os.register_at_fork(after_in_child=_forget_session)
atexit.register(shutdown)

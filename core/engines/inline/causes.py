"""Why inline work fails, as the value that its refs get. Pure but for `stillborn`, which loads the user's exception."""

from __future__ import annotations

from ... import ids
from ...errors import (
    ActorDiedError,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    OwnerDiedError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ...runtime import outcomes
from ...serialization import values
from ...serialization.failures import serialize_error
from ...serialization.values import Serialized
from .work import Actor, Work


def never_runs(name: str, why: str) -> Serialized:
    """A task that no resources will ever suffice for, or that no node suits."""
    return serialize_error(TaskUnschedulableError(f"{name}() can never run: {why}"))


def never_placed(actor: Actor, why: str) -> Serialized:
    """The same of an actor."""
    return serialize_error(ActorUnschedulableError(f"{actor.description} can never be placed: {why}"))


def unknown_actor(actor_id: bytes) -> Serialized:
    """A call to an actor of another session."""
    why = f"actor {actor_id.hex()} is not known to this session"
    return serialize_error(ActorDiedError(why, actor_id=actor_id.hex()))


def cancelled_while_it_ran(work: Work, pid: int) -> Serialized:
    """A call or task that was told to end."""
    why = f"{work.name}() was cancelled while it ran (pid={pid})"
    return serialize_error(TaskCancelledError(why, task_id=work.task_id.hex()))


def cancelled_before(work: Work) -> Serialized:
    """One that has never begun."""
    why = f"{work.name}() was cancelled before it began"
    return serialize_error(TaskCancelledError(why, task_id=work.task_id.hex()))


def process_ended(work: Work, ending: str) -> Serialized:
    """What stands for a task's process has ended, once too often."""
    why = f"{work.name}() did not finish: its worker ended with {ending}, and no retries are left"
    return serialize_error(WorkerCrashedError(why))


def being_restarted(actor: Actor, cause: str) -> Serialized:
    """Calls that an actor had when what stands for its process has ended."""
    why = f"{actor.description} is being restarted: its process ended with {cause}. This call may have run or not."
    return serialize_error(ActorUnavailableError(why, actor_id=actor.actor_id.hex()))


def dead(actor: Actor, why: str) -> Serialized:
    """Calls of a dead actor."""
    before = f" after {actor.restarts} restarts" if actor.restarts else ""
    text = f"{actor.description} is dead{before}: {why}"
    return serialize_error(ActorDiedError(text, actor_id=actor.actor_id.hex()))


def stillborn(actor: Actor, failure: Serialized, *, ran: bool) -> Serialized:
    """Calls of an actor whose constructor has failed, or could not run."""
    error = values.deserialize(failure.kind, failure.data, failure.buffers)
    assert isinstance(error, BaseException), "a FAILURE holds an exception"
    return serialize_error(outcomes.stillborn(actor.description, actor.actor_id, error, ran=ran))


def group_gone(actor: Actor) -> Serialized:
    """Calls of an actor whose placement group was removed."""
    why = f"{actor.description} is dead: its placement group has been removed"
    return serialize_error(ActorPlacementGroupRemoved(why))


def owner_died(object_id: bytes) -> Serialized:
    """An object of a dead actor."""
    return serialize_error(
        OwnerDiedError(
            f"ObjectRef({object_id.hex()}) is lost: the actor that owned it "
            f"(worker {ids.creator_of(object_id).hex()}) has died",
            object_ref_hex=object_id.hex(),
        )
    )

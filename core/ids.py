"""Identifiers: fixed-size byte strings that say where a thing comes from.

Plain ``bytes`` at run time (hashing and comparing them costs nothing extra), told apart for the type checker by
``NewType``.

    JobID     4 bytes   one driver's session with a cluster
    NodeID   12 bytes   random
    WorkerID 12 bytes   random; a driver has one too
    ActorID  16 bytes   WorkerID of the creator + 4-byte counter
    PlacementGroupID 18 bytes, WorkerID of the creator + 6-byte counter
    TaskID   24 bytes   WorkerID of the owner + 8-byte counter + JobID
    ObjectID 28 bytes   TaskID + 4-byte return index (little endian), as long as Ray's

Counters make ids unique without a random number per task, and the owner of an object can be read from its id.
"""

from __future__ import annotations

import os
from itertools import count
from typing import NewType

JobID = NewType("JobID", bytes)
NodeID = NewType("NodeID", bytes)
WorkerID = NewType("WorkerID", bytes)
ActorID = NewType("ActorID", bytes)
TaskID = NewType("TaskID", bytes)
ObjectID = NewType("ObjectID", bytes)
PlacementGroupID = NewType("PlacementGroupID", bytes)

JOB_BYTES = 4
NODE_BYTES = 12
WORKER_BYTES = 12
TASK_BYTES = 24
OBJECT_BYTES = 28
GROUP_BYTES = 18


def new_node_id() -> NodeID:
    """A random id."""
    return NodeID(os.urandom(NODE_BYTES))


def new_worker_id() -> WorkerID:
    """A random id."""
    return WorkerID(os.urandom(WORKER_BYTES))


def object_id(task: TaskID, index: int) -> ObjectID:
    """The id of return value `index` of `task`."""
    return ObjectID(task + index.to_bytes(4, "little"))


def task_of(object_id: bytes) -> TaskID:
    """The task whose return value the object is."""
    return TaskID(object_id[:TASK_BYTES])


def job_of(object_id: bytes) -> JobID:
    """The job that the object belongs to."""
    return JobID(object_id[TASK_BYTES - JOB_BYTES : TASK_BYTES])


def creator_of(actor_id: bytes) -> WorkerID:
    """The process that created the actor."""
    return WorkerID(actor_id[:WORKER_BYTES])


def group_parts(group_id: bytes) -> tuple[WorkerID, int]:
    """Who created a placement group, and the number of it among that process's groups, from 1."""
    return WorkerID(group_id[:WORKER_BYTES]), int.from_bytes(group_id[WORKER_BYTES:], "big")


class IdSource:
    """Makes the ids that one process hands out. Any thread may call it: ``next`` on a count is one atomic step."""

    def __init__(self, worker: WorkerID, job: JobID) -> None:
        self._worker = worker
        self._job = job
        self._tasks = count(1)
        self._actors = count(1)
        self._groups = count(1)

    def task(self) -> TaskID:
        return TaskID(self._worker + next(self._tasks).to_bytes(8, "little") + self._job)

    def actor(self) -> ActorID:
        return ActorID(self._worker + next(self._actors).to_bytes(4, "little"))

    def group(self) -> PlacementGroupID:
        number = next(self._groups).to_bytes(GROUP_BYTES - WORKER_BYTES, "big")
        return PlacementGroupID(self._worker + number)

"""Ray's classes of identifiers, for programs that build or compare them: ``ray.ActorID.from_random().hex()``.

The core itself passes plain ``bytes`` (`ids`), and these are bytes that know more: an `ActorID` equals the bytes of
the core's and is found under them in a dictionary. Sizes are the core's; those of nodes and workers of a Ray cluster
are Ray's, which are longer.
"""

from __future__ import annotations

import os
from typing import ClassVar

from .. import ids

__all__ = [
    "ActorClassID",
    "ActorID",
    "FunctionID",
    "JobID",
    "NodeID",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
]


class Identifier(bytes):
    """Bytes of a fixed length that name something. The nil one has all bits set, as Ray's."""

    SIZE: ClassVar[int] = 28
    #: Of those that a Ray cluster gives.
    SIZE_IN_RAY: ClassVar[int] = 0

    def __new__(cls, id: bytes) -> Identifier:  # noqa: A002  Ray's name of it
        """
        Raises:
          TypeError, ValueError: `id` is no bytes of the right number.
        """
        if not isinstance(id, bytes):
            raise TypeError(f"{cls.__name__} takes bytes, not {type(id).__name__} {id!r}")
        if len(id) not in (cls.SIZE, cls.SIZE_IN_RAY or cls.SIZE):
            raise ValueError(f"{cls.__name__} has {cls.SIZE} bytes, not {len(id)}")
        return super().__new__(cls, id)

    @classmethod
    def nil(cls) -> Identifier:
        """The one that names nothing."""
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def from_random(cls) -> Identifier:
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def from_binary(cls, id_bytes: bytes) -> Identifier:
        return cls(id_bytes)

    @classmethod
    def from_hex(cls, hex_id: str | bytes) -> Identifier:
        """From what `hex` gives."""
        return cls(bytes.fromhex(hex_id.decode() if isinstance(hex_id, bytes) else hex_id))

    @classmethod
    def size(cls) -> int:
        """Number of bytes."""
        return cls.SIZE

    def binary(self) -> bytes:
        return bytes(self)

    def is_nil(self) -> bool:
        return self == b"\xff" * len(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Identifier], tuple[bytes]]:
        return type(self), (bytes(self),)


class UniqueID(Identifier):
    """An identifier of anything."""


class ActorID(Identifier):
    """An actor."""

    SIZE = 16


class TaskID(Identifier):
    """A task."""

    SIZE = ids.TASK_BYTES

    def job_id(self) -> JobID:
        """The job that the task belongs to."""
        return JobID(self[-ids.JOB_BYTES :])


class JobID(Identifier):
    """A driver's session."""

    SIZE = ids.JOB_BYTES

    @classmethod
    def from_int(cls, value: int) -> JobID:
        """From what `int` gives."""
        return cls(value.to_bytes(cls.SIZE, "little"))

    def int(self) -> int:
        """The job as a number."""
        return int.from_bytes(self, "little")


class NodeID(UniqueID):
    """A machine."""

    SIZE = ids.NODE_BYTES
    SIZE_IN_RAY = 28


class WorkerID(UniqueID):
    """A process."""

    SIZE = ids.WORKER_BYTES
    SIZE_IN_RAY = 28


class PlacementGroupID(Identifier):
    """A placement group."""

    SIZE = 18


class FunctionID(UniqueID):
    """An exported function."""


class ActorClassID(UniqueID):
    """An exported class."""

"""Ray's identifier classes: bytes of a fixed size that print, compare and pickle as Ray's do."""

from __future__ import annotations

import pickle

import pytest

import shoal
from shoal.core.ray_compat.ray_ids import (
    ActorID,
    Identifier,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)

CLASSES = [ActorID, JobID, NodeID, PlacementGroupID, TaskID, UniqueID, WorkerID]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_identifier_is_its_bytes_and_its_class(cls):
    one = cls.from_random()
    assert one == one.binary() == cls(one.binary()) == cls.from_hex(one.hex()) == pickle.loads(pickle.dumps(one))
    assert type(one.binary()) is bytes
    assert type(pickle.loads(pickle.dumps(one))) is cls
    assert len(one) == cls.size()
    assert repr(one) == str(one) == f"{cls.__name__}({one.hex()})"
    assert not one.is_nil()
    assert cls.nil().is_nil()
    assert {one: 1}[one.binary()] == 1


@pytest.mark.parametrize(("wrong", "error"), [("text", TypeError), (b"short", ValueError), (None, TypeError)])
def test_what_is_no_identifier_is_refused(wrong, error):
    with pytest.raises(error, match="ActorID"):
        ActorID(wrong)


def test_a_job_is_a_number():
    assert JobID.from_int(7).int() == 7
    assert TaskID.from_random().job_id().size() == 4


def test_they_are_names_of_the_package():
    assert shoal.ActorID is ActorID
    assert shoal.ObjectID is shoal.ObjectRef
    assert issubclass(shoal.FunctionID, Identifier)

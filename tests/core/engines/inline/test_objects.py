"""The objects of the inline engine: counts, room, loss."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from shoal.core import ids
from shoal.core.engines.inline.objects import InlineObjects
from shoal.core.errors import ObjectStoreFullError
from shoal.core.serialization import values

DRIVER, ACTOR = ids.new_worker_id(), ids.new_worker_id()
JOB = ids.JobID(b"\1\0\0\0")
IDS = {owner: ids.IdSource(owner, JOB) for owner in (DRIVER, ACTOR)}
LARGE = np.zeros(1000)  # 8000 bytes


@pytest.fixture
def freed() -> list[bytes]:
    return []


@pytest.fixture
def objects(freed: list[bytes]) -> InlineObjects:
    return InlineObjects(DRIVER, store_bytes=20_000, inline_bytes=1000, on_free=freed.append)


def new(objects: InlineObjects, value: object = None, owner: bytes = DRIVER) -> bytes:
    object_id = ids.object_id(IDS[owner].task(), 0)
    objects.expect(object_id)
    if value is not None:
        objects.resolve(object_id, objects.owned(values.serialize(value)))
    return object_id


def test_an_object_goes_with_its_last_ref(objects, freed):
    object_id = new(objects, 1)
    objects.received(object_id)
    objects.released(object_id)
    objects.settle()
    assert object_id in objects
    objects.released(object_id)
    objects.settle()
    assert freed == [object_id]
    assert len(objects) == 0


def test_ids_that_are_not_known_are_not_counted(objects, freed):
    objects.received(b"x" * 28)
    objects.released(b"x" * 28)
    objects.settle()
    assert (len(objects), freed) == (0, [])


def test_watchers_hear_once_and_only_the_first_value_counts(objects):
    heard = []
    object_id = new(objects)
    assert objects.watch(object_id, lambda: heard.append(1))
    for value in (5, 6):
        objects.resolve(object_id, values.serialize(value))
    assert heard == [1]
    assert objects.load(object_id, objects.value(object_id)) == 5
    assert not objects.watch(object_id, lambda: heard.append(2))


def test_large_values_take_room_until_their_refs_and_views_are_gone(objects):
    first, second = new(objects, LARGE), new(objects, LARGE)
    with pytest.raises(ObjectStoreFullError, match="free"):
        objects.owned(values.serialize(LARGE))
    assert objects.owned(values.serialize(1))
    view = objects.load(first, objects.value(first))[10:20]
    for object_id in (first, second):
        objects.released(object_id)
    objects.settle()
    assert first in objects
    assert second not in objects
    del view
    gc.collect()
    objects.settle()
    assert len(objects) == 0
    assert objects.owned(values.serialize(np.zeros(2000)))


def test_what_a_dead_owner_made_is_lost_whether_there_or_not(objects):
    there, expected, others = new(objects, LARGE, ACTOR), new(objects, owner=ACTOR), new(objects, "kept")
    heard = []
    objects.watch(expected, lambda: heard.append(1))
    objects.lose(ACTOR, lambda object_id: values.serialize("lost"))
    assert heard == [1]
    assert [objects.load(i, objects.value(i)) for i in (there, expected, others)] == ["lost", "lost", "kept"]
    assert objects.owned(values.serialize(np.zeros(2000))), "its room is free"
    for object_id in (there, expected):
        objects.released(object_id)
    objects.settle()
    assert len(objects) == 1

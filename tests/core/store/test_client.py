"""The store as a process sees it: put, view, free; what is released when; threads and other processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from shoal.core.errors import ObjectFreedError, ObjectStoreFullError
from shoal.core.serialization.values import Serialized, deserialize, serialize
from shoal.core.store.arena import Arena
from shoal.core.store.client import Location, StoreClient
from shoal.core.store.regions import RegionTable

MIB = 1 << 20
ME = b"holder-12byt"
OWNER = b"owner-of-12b"


class Head:
    """The head's part of the store, without a process: an arena and its table."""

    def __init__(self, size_bytes: int) -> None:
        self.arena = Arena.create(size_bytes)
        self.table = RegionTable(size_bytes)
        self.clients: list[StoreClient] = []

    def client(self, holder: bytes = ME, slab_bytes: int = MIB) -> StoreClient:
        def request(size: int) -> int:
            offset = self.table.allocate(size, holder)
            if offset is None:
                raise ObjectStoreFullError(f"no room for {size} bytes")
            return offset

        arena = Arena.attach(os.dup(self.arena.fd))
        client = StoreClient(arena, holder, request, self.table.release, slab_bytes=slab_bytes)
        self.clients.append(client)
        return client


@pytest.fixture
def head() -> Iterator[Head]:
    made = Head(8 * MIB)
    yield made
    for client in made.clients:
        client.close()
    made.arena.close()


def fetch(client: StoreClient, sent: Serialized, location: Location) -> Any:
    return deserialize(sent.kind, *client.view(location, int))


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, 1000, 300_000, 3 * MIB])
def test_bytes_come_back_from_another_mapping(head, nbytes):
    content = random.Random(nbytes).randbytes(nbytes)
    sent = serialize(content)
    location = head.client().put(sent, OWNER)
    assert location.nbytes == nbytes
    assert fetch(head.client(b"another"), sent, location) == content


def test_every_buffer_is_aligned_and_read_only(head):
    client = head.client()
    value = {"a": np.arange(701.0), "b": np.ones((333, 5), np.float32), "c": np.zeros(0)}
    sent = serialize(value)
    location = client.put(sent, OWNER)
    data, buffers = client.view(location, int)
    assert data.readonly
    assert all(buffer.readonly for buffer in buffers)
    addresses = [np.frombuffer(buffer, np.uint8).ctypes.data for buffer in buffers if buffer.nbytes]
    assert [address % 64 for address in addresses] == [0, 0]
    result: Any = deserialize(sent.kind, data, buffers)
    for key, array in value.items():
        np.testing.assert_array_equal(result[key], array)
        assert not result[key].flags.writeable


def test_a_location_survives_msgpack(head):
    location = head.client().put(serialize({"a": np.arange(3), "b": np.arange(4)}), OWNER)
    assert Location.from_wire(msgpack.unpackb(msgpack.packb(location))) == location


def test_release_is_told_once_when_the_last_view_is_gone(head):
    client, released = head.client(), deque()
    sent = serialize({"a": np.arange(1000), "b": np.arange(600)})
    location = client.put(sent, OWNER)
    value: Any = deserialize(sent.kind, *client.view(location, lambda: released.append(1)))
    part = value["a"][3:5]
    assert client.statistics().views == 1
    del value
    gc.collect()
    assert not released
    del part
    gc.collect()
    assert list(released) == [1]
    assert client.statistics().views == 0


def test_each_view_of_an_object_is_released_for_itself(head):
    client, released = head.client(), deque()
    location = client.put(serialize(b"abc"), OWNER)
    views = [client.view(location, lambda number=number: released.append(number)) for number in range(3)]
    views.pop(1)
    gc.collect()
    assert list(released) == [1]


def test_a_view_may_die_in_another_thread(head):
    client, released = head.client(), deque()
    location = client.put(serialize(b"abc"), OWNER)
    box = [client.view(location, lambda: released.append(threading.get_ident()))]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join(timeout=10)
    assert len(released) == 1


def test_freed_memory_is_used_again_warm(head):
    client = head.client()
    first = client.put(serialize(b"x" * 1000), OWNER)
    client.free(first)
    second = client.put(serialize(b"y" * 1000), OWNER)
    assert second.offset == first.offset
    assert second.serial != first.serial


@pytest.mark.parametrize("nbytes", [100, 2 * MIB], ids=["in a slab", "in its own region"])
@pytest.mark.parametrize("who", ["holder", "another"])
def test_freeing_twice_is_an_error_and_viewing_what_is_freed_too(head, nbytes, who):
    holder = head.client()
    client = holder if who == "holder" else head.client(b"another")
    location = holder.put(serialize(bytes(nbytes)), OWNER)
    client.free(location)
    with pytest.raises(ValueError, match="freed before"):
        client.free(location)
    with pytest.raises(ObjectFreedError, match="no object is at"):
        client.view(location, int)


def test_a_large_object_has_a_region_of_its_own_which_is_given_back(head):
    client = head.client()
    location = client.put(serialize(np.zeros(MIB // 2, np.uint8)), OWNER)
    assert location.is_dedicated
    assert head.table.statistics().held_bytes == MIB
    head.client(b"another").free(location)
    assert head.table.statistics().held_bytes == 0
    assert client.statistics().slabs == 0


def test_wholly_free_slabs_beyond_one_are_given_back(head):
    client = head.client()
    locations = [client.put(serialize(bytes(200_000)), OWNER) for _ in range(15)]
    assert client.statistics().slabs == 3
    for location in locations:
        client.free(location)
    assert client.statistics().slabs == 1
    assert head.table.statistics().held_regions == 1


def test_slabs_that_others_emptied_are_given_back_by_trim(head):
    client, other = head.client(), head.client(b"another")
    locations = [client.put(serialize(bytes(200_000)), OWNER) for _ in range(15)]
    for location in locations:
        other.free(location)
    assert client.trim() == 2 * MIB
    assert client.trim() == 0
    assert head.table.statistics().held_regions == 1


def test_a_full_store_says_so_and_has_room_again_after_a_free(head):
    client = head.client()
    locations = [client.put(serialize(bytes(200_000)), OWNER) for _ in range(8 * 5)]
    with pytest.raises(ObjectStoreFullError, match="no room for 1048576 bytes"):
        client.put(serialize(bytes(200_000)), OWNER)
    head.client(b"another").free(locations[17])
    again = client.put(serialize(bytes(200_000)), OWNER)
    assert again.offset == locations[17].offset


def test_slabs_that_others_emptied_make_room_for_a_large_object(head):
    client, other = head.client(), head.client(b"another")
    locations = [client.put(serialize(bytes(200_000)), OWNER) for _ in range(40)]
    for location in locations:
        other.free(location)
    large = client.put(serialize(bytes(6 * MIB)), OWNER)
    assert large.is_dedicated


def test_a_region_that_cannot_be_backed_is_given_back(head, monkeypatch):
    client = head.client()

    def refuse(offset: int, size: int) -> None:
        raise ObjectStoreFullError("no memory")

    monkeypatch.setattr(client._arena, "back", refuse)
    with pytest.raises(ObjectStoreFullError, match="no memory"):
        client.put(serialize(b"abc"), OWNER)
    assert head.table.statistics().held_regions == 0


@pytest.mark.parametrize("nbytes", [100, 2 * MIB], ids=["in a slab", "in its own region"])
def test_an_interrupted_put_leaves_nothing_behind(head, monkeypatch, nbytes):
    client = head.client()

    def interrupt(serialized: Serialized, offset: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client, "_copy", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.put(serialize(bytes(nbytes)), OWNER)
    assert client.statistics().used_bytes == 0
    assert head.table.statistics().held_bytes == client.statistics().slab_bytes


def test_a_dead_owners_objects_are_freed(head):
    client = head.client()
    for owner in (OWNER, b"another-12by", OWNER):
        client.put(serialize(b"abc"), owner)
    assert client.owner_died(OWNER) == 2
    assert client.owner_died(OWNER) == 0


def test_what_somebody_reads_of_a_dead_owner_stays(head):
    client, sent = head.client(), serialize(b"still here")
    read, unread = client.put(sent, OWNER), client.put(serialize(b"unread"), OWNER)
    assert client.owner_died(OWNER, [read.offset]) == 1
    assert fetch(client, sent, read) == b"still here"
    with pytest.raises(ObjectFreedError):
        client.view(unread, lambda: None)


def test_a_result_for_a_dead_owner_is_dropped_once(head):
    client = head.client()
    small = client.put(serialize(b"small"), OWNER)
    assert client.free_unread(small)
    assert not client.free_unread(small)
    assert not client.free_unread(client.put(serialize(bytes(2 * MIB)), OWNER)), "large ones are the head's"


def test_threads_may_put_view_and_free_at_once(head):
    client, failures = head.client(), []

    def work(seed: int) -> None:
        source = random.Random(seed)
        mine: list[tuple[Serialized, Location, bytes]] = []
        try:
            for _ in range(150):
                content = source.randbytes(source.randrange(1, 60_000))
                sent = serialize(content)
                mine.append((sent, client.put(sent, OWNER), content))
                sent, location, content = mine.pop(source.randrange(len(mine))) if len(mine) > 8 else mine[0]
                assert fetch(client, sent, location) == content
                if (sent, location, content) not in mine:
                    client.free(location)
            for _, location, _ in mine:
                client.free(location)
        except BaseException as error:  # noqa: BLE001  told to the test below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert client.statistics().used_bytes == 0


def test_the_lock_is_not_held_while_a_region_is_requested(head):
    """The request waits for a loop that frees: it would wait for ever."""
    other = head.client(b"another")
    held = other.put(serialize(b"abc"), OWNER)
    client = head.client()
    request = client._request_region

    def request_while_freeing(size: int) -> int:
        thread = threading.Thread(target=client.free, args=(held,))
        thread.start()
        thread.join(timeout=10)
        assert not thread.is_alive()
        return request(size)

    client._request_region = request_while_freeing
    client.put(serialize(b"x"), OWNER)


def free_in_child(fd: int, fields: list[Any]) -> None:
    client = StoreClient(Arena.attach(fd), b"child-12byte", lambda size: 1 // 0, lambda region: None, slab_bytes=MIB)
    location = Location.from_wire(fields)
    data, _ = client.view(location, int)
    if bytes(data) == b"from the parent":
        client.free(location)
    client.close()


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork to inherit the descriptor"
)
def test_another_process_sees_and_frees_an_object(head):
    client = head.client()
    location = client.put(serialize(b"from the parent"), OWNER)
    child = multiprocessing.get_context("fork").Process(target=free_in_child, args=(head.arena.fd, list(location)))
    child.start()
    child.join(timeout=30)
    assert child.exitcode == 0
    with pytest.raises(ObjectFreedError):
        client.view(location, int)
    client.trim()
    assert client.statistics().used_bytes == 0


def test_views_outlive_the_client_and_everything_else_is_refused(head):
    client = head.client()
    sent = serialize(np.arange(10))
    location = client.put(sent, OWNER)
    array = fetch(client, sent, location)
    client.close()
    client.close()
    assert array.sum() == 45
    for call in (lambda: client.put(sent, OWNER), lambda: client.view(location, int), lambda: client.free(location)):
        with pytest.raises(ValueError, match="the object store of this process is closed"):
            call()


def test_slabs_have_whole_mebibytes(head):
    with pytest.raises(ValueError, match="positive multiple of 1048576 bytes, not 100"):
        head.client(slab_bytes=100)


def test_the_last_view_takes_the_memory_of_a_closed_store_along(head):
    """Without a look for cycles: a closed session is one, and may have gigabytes."""
    client = head.client()
    _, buffers = client.view(client.put(serialize(np.ones(MIB // 8)), OWNER), int)
    alive = weakref.ref(client._arena.view.obj)
    client.close()
    assert np.frombuffer(buffers[0]).sum() == MIB // 8
    gc.disable()
    try:
        del _, buffers
        assert alive() is None
    finally:
        gc.enable()

"""Slabs: no overlap, no loss, joining and reuse against a naive model; headers parse whenever the holder dies."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from shoal.core.store import allocator
from shoal.core.store.allocator import (
    FREE,
    FREED,
    HEADER_BYTES,
    LIVE,
    WRITING,
    Place,
    Slab,
    live_blocks,
    mark_freed,
    round_up,
)

OWNER = b"owner-of-12b"
SIZE = 64 * 64


def make(size: int = SIZE) -> tuple[memoryview, Slab]:
    buffer = memoryview(bytearray(size))
    return buffer, Slab.create(buffer)


def live(slab: Slab, nbytes: int, owner: bytes = OWNER) -> Place:
    place = slab.allocate(nbytes, owner)
    assert place is not None
    slab.seal(place)
    return place


def check_whole(slab: Slab) -> None:
    """The headers tile the slab, agree with the holder's bookkeeping, and no two known free blocks touch."""
    blocks = list(slab.blocks())
    assert sum(block.size for block in blocks) == slab.size_bytes
    statistics = slab.statistics()
    used = [block for block in blocks if block.state != FREE]
    assert statistics.used_blocks == len(used)
    assert statistics.used_bytes == sum(block.size for block in used)
    assert statistics.used_bytes + statistics.free_bytes + statistics.untouched_bytes == slab.size_bytes
    tail = slab.size_bytes - statistics.untouched_bytes
    for first, second in pairwise(blocks):
        assert not (first.state == second.state == FREE) or second.offset == tail


steps = st.lists(
    st.tuples(st.sampled_from(["allocate", "free", "mark", "sweep", "reopen"]), st.integers(0, 900)), max_size=60
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_a_slab_behaves_as_the_naive_model(script):
    """The model is a list of the payloads in use, each filled with a byte of its own which nobody else may change."""
    buffer, slab = make()
    model: dict[Place, bytes] = {}
    for number, (action, amount) in enumerate(script):
        if action == "allocate":
            place = slab.allocate(amount, OWNER)
            if place is None:
                continue
            assert place.offset % 64 == 0
            buffer[place.offset : place.offset + amount] = bytes([number]) * amount
            slab.seal(place)
            model[place] = bytes([number]) * amount
        elif action in ("free", "mark") and model:
            place = list(model)[amount % len(model)]
            del model[place]
            if action == "free":
                slab.free(place)
            else:
                mark_freed(buffer, place.offset, place.serial)
        elif action == "sweep":
            slab.sweep(amount)
        elif action == "reopen":
            slab = Slab.open(buffer, first_serial=number * 1000)
        check_whole(slab)
        for place, content in model.items():
            assert buffer[place.offset : place.offset + len(content)] == content
    for place in model:
        mark_freed(buffer, place.offset, place.serial)
    slab.sweep_all()
    assert slab.is_empty
    whole = slab.allocate(SIZE - HEADER_BYTES, OWNER)
    assert whole is not None, "freed blocks were not joined to the whole"


def test_room_is_used_to_the_last_block():
    _, slab = make()
    places = [live(slab, 64) for _ in range(SIZE // 128)]
    assert len({place.offset for place in places}) == SIZE // 128
    assert slab.allocate(1, OWNER, thorough=True) is None


def test_used_memory_is_taken_before_untouched_memory():
    _, slab = make()
    first, _second = live(slab, 100), live(slab, 100)
    slab.free(first)
    assert live(slab, 100).offset == first.offset
    assert slab.statistics().untouched_bytes == SIZE - 2 * (HEADER_BYTES + round_up(100))


def test_what_another_process_freed_is_found_by_the_hand_and_reused():
    buffer, slab = make()
    places = [live(slab, 64) for _ in range(10)]
    for place in places:
        mark_freed(buffer, place.offset, place.serial)
    untouched = slab.statistics().untouched_bytes
    for _ in range(5):
        live(slab, 64)
    assert slab.statistics().untouched_bytes == untouched


def test_a_freed_block_is_found_before_the_slab_says_that_it_is_full():
    buffer, slab = make()
    places = [live(slab, 64) for _ in range(SIZE // 128)]
    mark_freed(buffer, places[-1].offset, places[-1].serial)
    found = slab.allocate(64, OWNER, thorough=True)
    assert found is not None
    assert found.offset == places[-1].offset


def test_the_tail_and_the_free_block_before_it_serve_a_large_request_together():
    _, slab = make()
    first = live(slab, SIZE // 2)
    slab.free(first)
    assert slab.allocate(SIZE - HEADER_BYTES, OWNER) is not None


@pytest.mark.parametrize("how", ["holder", "other process"])
def test_freeing_twice_is_an_error_that_says_so(how):
    buffer, slab = make()
    place, _after = live(slab, 64), live(slab, 64)

    def free() -> None:
        if how == "holder":
            slab.free(place)
        else:
            mark_freed(buffer, place.offset, place.serial)

    free()
    with pytest.raises(ValueError, match="freed before"):
        free()
    slab.sweep_all()
    live(slab, 64)
    with pytest.raises(ValueError, match="its place is used again"):
        free()


def test_a_place_whose_header_is_gone_was_freed_before():
    buffer, slab = make()
    place = live(slab, 64)
    buffer[place.offset - HEADER_BYTES : place.offset] = b"x" * HEADER_BYTES
    with pytest.raises(ValueError, match="freed before: its header is gone"):
        slab.free(place)


def test_a_block_that_is_not_sealed_cannot_be_freed_by_others_but_taken_back_by_the_holder():
    buffer, slab = make()
    place = slab.allocate(64, OWNER)
    assert place is not None
    with pytest.raises(ValueError, match="WRITING, not LIVE"):
        mark_freed(buffer, place.offset, place.serial)
    slab.free(place)
    assert slab.is_empty


def test_a_dead_owners_blocks_are_freed_and_no_others():
    _, slab = make()
    kept = live(slab, 64, b"another-12by")
    live(slab, 64)
    live(slab, 64)
    assert slab.free_all_of(OWNER) == 2
    assert [block.offset for block in slab.blocks() if block.state == LIVE] == [kept.offset - HEADER_BYTES]


def test_headers_tell_the_owner():
    _, slab = make()
    live(slab, 64)
    first = next(slab.blocks())
    assert (first.state, first.owner) == (LIVE, OWNER)


class Killed(Exception):  # noqa: N818  it stands for a signal
    pass


class CutWords:
    """The words of a buffer; the holder dies before store number `left`."""

    def __init__(self, words: memoryview, left: list[int]) -> None:
        self._words, self._left = words, left

    def __getitem__(self, index):
        return self._words[index]

    def __setitem__(self, index, value) -> None:
        if self._left[0] == 0:
            raise Killed
        self._left[0] -= 1
        self._words[index] = value

    def __len__(self) -> int:
        return len(self._words)


def run_until_cut(buffer: memoryview, seed: int, stores: int) -> tuple[dict[Place, int], bool]:
    """A random life of a slab that ends before store `stores`: the sealed blocks not freed, and if it ended early."""
    source = random.Random(seed)
    slab = Slab.create(buffer)
    left = [stores]
    slab._words = CutWords(slab._words, left)  # type: ignore[assignment]
    slab._bytes = CutWords(slab._bytes, left)  # type: ignore[assignment]
    alive: dict[Place, int] = {}
    try:
        for _ in range(40):
            if alive and source.random() < 0.45:
                place = source.choice(list(alive))
                if source.random() < 0.5:
                    del alive[place]
                    mark_freed(buffer, place.offset, place.serial)
                    slab.sweep(source.randrange(6))
                else:
                    size = alive.pop(place)
                    try:
                        slab.free(place)
                    except Killed:
                        # Before its only store the block is still LIVE.
                        alive[place] = size
                        raise
            else:
                size = source.randrange(1, 700)
                place = slab.allocate(size, OWNER)
                if place is not None:
                    slab.seal(place)
                    alive[place] = size
    except Killed:
        return alive, True
    return alive, False


@pytest.mark.parametrize("seed", range(6))
def test_whatever_store_the_holder_dies_before_another_can_go_on(seed):
    stores, cut = 0, True
    while cut:
        buffer = memoryview(bytearray(SIZE))
        alive, cut = run_until_cut(buffer, seed, stores)
        slab = Slab.open(buffer)
        check_whole(slab)
        found = {block.offset + HEADER_BYTES for block in slab.blocks() if block.state == LIVE}
        assert found == {place.offset for place in alive}
        for place in alive:
            slab.free(place)
        assert slab.is_empty
        assert slab.allocate(SIZE - HEADER_BYTES, OWNER) is not None
        stores += 1
    assert stores > 60, "the sequence was too short to mean anything"


def test_blocks_that_were_being_written_are_free_after_opening():
    buffer, slab = make()
    slab.allocate(64, OWNER)
    kept = live(slab, 64)
    opened = Slab.open(buffer)
    assert [block.state for block in opened.blocks()] == [FREE, LIVE, FREE]
    opened.free(kept)
    assert opened.is_empty


def test_a_freed_large_object_is_not_opened_as_room():
    buffer, slab = make()
    place = live(slab, SIZE - HEADER_BYTES)
    mark_freed(buffer, place.offset, place.serial)
    opened = Slab.open(buffer)
    assert not opened.is_empty
    assert opened.allocate(1, OWNER, thorough=True) is None
    assert [block.state for block in opened.blocks()] == [FREED]


def test_memory_that_holds_no_slab_is_refused():
    with pytest.raises(ValueError, match="no block starts at byte 0"):
        Slab.open(bytearray(SIZE))
    buffer, slab = make()
    place = live(slab, 64)
    live(slab, 64)
    buffer[place.offset + 64 : place.offset + 72] = b"\xff" * 8
    with pytest.raises(ValueError, match="no block starts at byte 128"):
        Slab.open(buffer)
    with pytest.raises(ValueError, match="multiple of 64"):
        Slab.create(bytearray(100))
    with pytest.raises(ValueError, match="read-only"):
        Slab.create(memoryview(bytes(SIZE)))


def test_serials_wrap_around():
    buffer = memoryview(bytearray(SIZE))
    slab = Slab.create(buffer, first_serial=allocator._SERIALS - 1)
    assert live(slab, 1).serial == 0


def test_states_are_said_by_name_in_order():
    assert [allocator._STATES[state] for state in (FREE, WRITING, LIVE, FREED)] == ["FREE", "WRITING", "LIVE", "FREED"]


def test_live_blocks_are_found_as_far_as_headers_parse():
    buffer = bytearray(64 * 64)
    assert live_blocks(memoryview(buffer)) == []
    slab = Slab.create(buffer)
    first, second = slab.allocate(10, OWNER), slab.allocate(10, OWNER)
    slab.allocate(10, OWNER)  # not sealed
    slab.seal(first)
    slab.seal(second)
    slab.free(first)
    assert [block.offset + HEADER_BYTES for block in live_blocks(memoryview(buffer))] == [second.offset]

"""GPU ids: shares of each add up, whole ones are whole."""

from hypothesis import given, strategies as st

from shoal.core.node.gpus import GpuPool
from shoal.core.resources import SCALE

shares = st.sampled_from([1, SCALE // 4, SCALE // 2, SCALE * 3 // 4, SCALE, 2 * SCALE])


def test_whole_gpus_come_in_order_and_fractions_share_the_fullest():
    pool = GpuPool.of_whole(["3", "5", "7"])
    assert pool.take(SCALE // 2) == {"3": SCALE // 2}
    assert pool.take(SCALE) == {"5": SCALE}
    assert pool.take(SCALE // 4) == {"3": SCALE // 4}
    assert pool.take(2 * SCALE) is None
    assert pool.take(SCALE // 2) == {"7": SCALE // 2}
    assert pool.take(SCALE // 4) == {"3": SCALE // 4}


def test_two_halves_of_different_gpus_are_not_one():
    pool = GpuPool({"0": SCALE // 2, "1": SCALE // 2})
    assert pool.take(SCALE) is None
    assert pool.take(SCALE * 3 // 4) is None
    assert pool.free == {"0": SCALE // 2, "1": SCALE // 2}


def test_nothing_is_always_to_be_had():
    assert GpuPool({}).take(0) == {}


@given(st.integers(0, 3), st.lists(st.one_of(shares, st.none()), max_size=30), st.randoms(use_true_random=False))
def test_what_is_taken_and_what_is_free_is_all_there_is(count, steps, random):
    """None gives back something that was taken."""
    pool, held = GpuPool.of_whole(str(n) for n in range(count)), []
    for parts in steps:
        if parts is None:
            if held:
                pool.give_back(held.pop(random.randrange(len(held))))
            continue
        before = pool.free
        taken = pool.take(parts)
        if taken is None:
            assert pool.free == before
            fits = (
                max(before.values(), default=0) >= parts
                if parts < SCALE
                else (sum(free == SCALE for free in before.values()) >= parts // SCALE)
            )
            assert not fits, "refused although it was to be had"
            continue
        assert sum(taken.values()) == parts
        assert parts < SCALE or all(share == SCALE for share in taken.values())
        assert parts > SCALE or len(taken) == 1
        held.append(taken)
    for gpu in map(str, range(count)):
        assert pool.free[gpu] + sum(taken.get(gpu, 0) for taken in held) == SCALE

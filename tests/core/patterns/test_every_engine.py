"""The patterns are written on the API alone: each works on every engine that has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shoal
from shoal.util import ActorPool, as_completed, map_unordered
from shoal.util.multiprocessing import Pool
from shoal.util.queue import Empty, Full, Queue

DEADLINE_S = 30


@pytest.fixture(scope="module", params=["native", "inline"], autouse=True)
def session(request: pytest.FixtureRequest) -> Iterator[None]:
    shoal.init(num_cpus=2, engine=request.param)
    yield
    shoal.shutdown()


@shoal.remote
class Doubler:
    def double(self, value):
        return 2 * value


@shoal.remote
def identity(value):
    return value


def test_actor_pools():
    pool = ActorPool([Doubler.remote(), Doubler.remote()])
    assert list(pool.map(lambda actor, value: actor.double.remote(value), range(5))) == [0, 2, 4, 6, 8]
    assert sorted(pool.map_unordered(lambda actor, value: actor.double.remote(value), range(3))) == [0, 2, 4]


def test_iterators():
    assert sorted(as_completed([identity.remote(value) for value in range(4)], chunk_size=1)) == [0, 1, 2, 3]
    assert sorted(map_unordered(identity, range(4), backpressure_size=2)) == [0, 1, 2, 3]


def test_process_pools():
    with Pool(2) as pool:
        assert pool.map(abs, [-1, -2, 3]) == [1, 2, 3]
        assert list(pool.imap(abs, iter([-1, -2]))) == [1, 2]
        assert pool.apply_async(abs, (-3,)).get(timeout=DEADLINE_S) == 3
        with pytest.raises(ZeroDivisionError):
            pool.apply(divmod, (1, 0))


def test_queues():
    queue = Queue(2)
    queue.put_nowait_batch([1, 2])
    with pytest.raises(Full):
        queue.put(3, timeout=0.05)
    assert [queue.get(), queue.get(timeout=DEADLINE_S)] == [1, 2]
    with pytest.raises(Empty):
        queue.get_nowait()
    queue.shutdown()

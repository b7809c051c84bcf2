"""Counts of calls under way, by actor."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given, strategies as st

from shoal.core.errors import PendingCallsLimitExceeded
from shoal.core.runtime.pending_calls import PendingCalls

LIMIT = 3


@given(st.lists(st.tuples(st.sampled_from(["up", "down"]), st.sampled_from([b"a", b"b"])), max_size=60))
def test_there_are_never_more_than_the_limit_and_each_actor_has_its_own(steps):
    calls, model = PendingCalls(), {b"a": 0, b"b": 0}
    for step, actor in steps:
        if step == "down":
            if model[actor]:
                calls.down(actor)
                model[actor] -= 1
        elif model[actor] == LIMIT:
            with pytest.raises(PendingCallsLimitExceeded, match="get some results first"):
                calls.up(actor, LIMIT, "f")
        else:
            calls.up(actor, LIMIT, "f")
            model[actor] += 1
        assert calls._counts == {actor: count for actor, count in model.items() if count}


def test_threads_do_not_lose_counts():
    calls = PendingCalls()

    def work(seed):
        chance = random.Random(seed)
        for _ in range(2000):
            calls.up(b"a", 100, "f")
            if chance.random() < 0.1:
                with pytest.raises(PendingCallsLimitExceeded):
                    calls.up(b"a", 1, "f")
            calls.down(b"a")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not calls._counts

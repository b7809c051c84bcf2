"""An inference actor without processes: what it answers, to whom together, and what it forgets."""

import asyncio

import gymnasium
import numpy as np
import pytest

from shoal.envs.columns import ONLY
from shoal.rllib.inference.inference import InferenceActor, Unknown
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights

NETWORKS = [{}, {"shared_value_net": True}, {"recurrent": "lstm", "recurrent_size": 5}]


def weights(version=0, **network):
    box, discrete = gymnasium.spaces.Box(-9, 9, (3,)), gymnasium.spaces.Discrete(4)
    spec = policy_spec("toy", box, discrete, NetworkSettings(**{"hidden_sizes": (16,), **network}))
    return Weights(version, spec, initial_weights(spec, seed=version))


def seen(policy_weights, count, seed):
    """Rows and recurrent states."""
    stream = np.random.default_rng(seed)
    states = stream.normal(size=(count, policy_weights.spec.state_size)).astype(np.float32)
    return {ONLY: stream.normal(size=(count, 3)).astype(np.float32)}, states


class Put:
    """A reference to a value, as a coroutine sees it."""

    def __init__(self, value):
        self.value, self.fetched = value, 0

    def __await__(self):
        self.fetched += 1
        yield from asyncio.sleep(0).__await__()
        return self.value


def run(scene, num_rows=8):
    """A coroutine function of an actor, until it ends."""

    async def bounded():
        return await asyncio.wait_for(scene(InferenceActor(num_rows=num_rows)), 20)

    return asyncio.run(bounded())


@pytest.mark.parametrize("network", NETWORKS)
def test_workers_are_answered_together_as_each_would_answer_itself_to_the_last_bit(network):
    held = weights(**network)
    asked = [seen(held, count, seed=count) for count in (2, 1, 5)]

    async def scene(actor):
        lives = {await actor.begin(worker, "key", [Put(held)]) for worker in range(3)}
        answers = await asyncio.gather(*(actor.step(worker, "key", *asked[worker]) for worker in range(3)))
        values = [await actor.values(worker, "key", *asked[worker]) for worker in range(3)]
        assert {answer.life for answer in [*answers, *values]} == lives
        return answers, values

    answers, values = run(scene)
    alone = Policy(held)
    assert [answer.batch_rows for answer in answers] == [8, 8, 8]
    for answer, valued, (rows, states) in zip(answers, values, asked, strict=True):
        expected = alone.step(rows, states)
        np.testing.assert_array_equal(answer.parameters, expected.parameters)
        np.testing.assert_array_equal(valued.values, alone.values(rows, states))
        for mine, its in ((answer.values, expected.values), (answer.states, expected.states if network else None)):
            if mine is not None and its is not None:
                np.testing.assert_array_equal(mine, its)
        assert (answer.values is None) == (expected.values is None)
        assert (answer.states is None) == (not held.spec.state_size)


def test_weights_are_fetched_once_whoever_brings_them_and_however_many_at_a_time():
    brought = Put(weights())

    async def scene(actor):
        await asyncio.gather(*(actor.begin(worker, "key", [brought]) for worker in range(5)))
        await actor.begin(0, "key", [brought])

    run(scene)
    assert brought.fetched == 1


def test_weights_that_nobody_plays_with_are_forgotten():
    brought = [Put(weights(version)) for version in range(2)]
    asked = seen(brought[0].value, 1, seed=0)

    async def scene(actor):
        for worker in range(2):
            await actor.begin(worker, "old", [brought[0]])
        await actor.begin(0, "new", [brought[1]])
        assert (await actor.step(1, "old", *asked)).version == 0
        await actor.begin(1, "new", [brought[1]])
        told = await actor.step(1, "old", *asked)
        assert isinstance(told, Unknown)
        assert isinstance(await actor.values(1, "old", *asked), Unknown)
        assert told.life == await actor.begin(1, "new", [brought[1]])

    run(scene)


def test_workers_with_other_weights_are_answered_by_those_and_apart():
    brought = [Put(weights(version)) for version in range(2)]
    asked = seen(brought[0].value, 2, seed=0)

    async def scene(actor):
        for worker in range(2):
            await actor.begin(worker, f"key {worker}", [brought[worker]])
        return await asyncio.gather(*(actor.step(worker, f"key {worker}", *asked) for worker in range(2)))

    for version, answer in enumerate(run(scene)):
        assert (answer.version, answer.batch_rows) == (version, 2)
        np.testing.assert_array_equal(answer.parameters, Policy(brought[version].value).step(*asked).parameters)


def test_a_worker_that_died_blocks_nobody_and_what_it_asked_is_dropped():
    held = weights()
    asked = seen(held, 2, seed=0)

    async def scene(actor):
        for worker in range(2):
            await actor.begin(worker, "key", [Put(held)])
        last_words = asyncio.ensure_future(actor.step(0, "key", *asked))
        actor._lanes["key"].queue.times.observe(1, 1000.0)  # so that only those who could send are waited for
        await asyncio.sleep(0)
        await actor.begin(0, "key", [Put(held)])
        answers = await asyncio.gather(*(actor.step(worker, "key", *asked) for worker in range(2)))
        assert last_words.cancelled()
        assert not actor._lanes["key"].asked
        return answers

    assert [answer.batch_rows for answer in run(scene, num_rows=4)] == [4, 4]


def test_a_worker_that_is_slow_is_waited_for_as_long_as_a_batch_costs():
    held = weights()
    asked = seen(held, 2, seed=0)

    async def scene(actor):
        for worker in range(2):
            await actor.begin(worker, "key", [Put(held)])
        return await actor.step(0, "key", *asked)

    assert run(scene).batch_rows == 2


def test_who_has_asked_for_values_has_played_and_is_not_waited_for():
    held = weights()
    asked = seen(held, 2, seed=0)

    async def scene(actor):
        for worker in range(2):
            await actor.begin(worker, "key", [Put(held)])
        actor._lanes["key"].queue.times.observe(1, 1000.0)
        waiting = asyncio.ensure_future(actor.step(0, "key", *asked))
        await actor.values(1, "key", *asked)
        return await waiting

    assert run(scene).batch_rows == 2


def test_what_a_policy_raises_belongs_to_those_who_asked_and_to_nobody_after_them():
    held = weights()
    rows, states = seen(held, 1, seed=0)

    async def scene(actor):
        await actor.begin(0, "key", [Put(held)])
        with pytest.raises(KeyError, match=ONLY):
            await actor.step(0, "key", {"another": rows[ONLY]}, states)
        return await actor.step(0, "key", rows, states)

    assert run(scene).batch_rows == 1


@pytest.mark.parametrize("column", [ONLY, "another"])
def test_a_call_that_is_cancelled_leaves_the_others_alone(column):
    held = weights()
    rows, states = seen(held, 1, seed=0)

    async def scene(actor):
        for worker in range(2):
            await actor.begin(worker, "key", [Put(held)])
        calls = [asyncio.ensure_future(actor.step(worker, "key", {column: rows[ONLY]}, states)) for worker in range(2)]
        await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.wait(calls)
        assert calls[0].cancelled()
        assert calls[1].exception() is None or column != ONLY
        return await actor.step(0, "key", rows, states)

    assert run(scene).batch_rows == 1

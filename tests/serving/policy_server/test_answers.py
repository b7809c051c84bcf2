"""A server of policies on an event loop of the test's own: what it answers, and what it refuses."""

import asyncio

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rllib.policies.policy import Policy
from shoal.serving.errors import (
    BadObservation,
    BadRequest,
    PolicyFailed,
    Unready,
)
from shoal.serving.models import PolicyModel
from shoal.serving.policies import RefusedError
from shoal.serving.requests import ActRequest
from shoal.serving.spaces import space_form

OBSERVATION = spaces.Box(-10, 10, (4,), np.float32)
NESTED = spaces.Dict({"gear": spaces.Discrete(3, start=-1), "steer": spaces.Box(-1, 1, (2,), np.float32)})


def test_actions_are_those_of_the_policy_with_version_log_probability_and_value(weights, rows, run_served):
    async def test(server):
        reply = await server.compute_actions(rows(5), want_log_prob=True, want_value=True)
        policy = Policy(weights(3))
        expected, _ = policy.act(rows(5), deterministic=True)
        assert reply.actions.tolist() == expected[:, 0].tolist()
        assert (reply.policy, reply.version, reply.state) == ("walker", 3, None)
        acted = policy.step({"observation": rows(5)}, policy.initial_states(5))
        log_probs = acted.parameters - np.log(np.exp(acted.parameters).sum(1, keepdims=True))
        np.testing.assert_allclose(reply.log_prob, log_probs[range(5), expected[:, 0]], rtol=1e-5)
        np.testing.assert_array_equal(reply.value, policy.values(rows(5)))

    run_served(test, weights(3))


def test_a_policy_that_acts_in_torch_gives_the_same_actions_from_the_thread_and_refuses_memory(
    weights, rows, run_served
):
    async def test(server):
        replies = await asyncio.gather(*(server.compute_actions(rows(5, seed), want_value=True) for seed in range(3)))
        for seed, reply in enumerate(replies):
            policy = Policy(weights(3))
            assert reply.actions.tolist() == policy.act(rows(5, seed), deterministic=True)[0][:, 0].tolist()
            np.testing.assert_allclose(reply.value, policy.values(rows(5, seed)), rtol=1e-4, atol=1e-5)
        with pytest.raises(RefusedError, match="inference_device must be cpu for recurrent policies"):
            await server.load("runner", weights(recurrent="gru"))

    run_served(test, weights(3), device="auto")


def test_actions_have_the_structure_of_their_space_or_what_the_policys_shape_tells_of_it(weights, rows, run_served):
    told = PolicyModel(weights(actions=NESTED), spaces=(space_form(OBSERVATION), space_form(NESTED)))

    async def test(server):
        for name in ("walker", "runner"):
            reply = await server.compute_actions(rows(4), policy=name)
            gears, steering = reply.actions.values() if name == "runner" else reply.actions
            assert gears.shape == (4,)
            assert set(gears.tolist()) <= {-1, 0, 1}
            assert steering.shape == (4, 2)
            assert steering.dtype == np.float32
        assert [*reply.actions] == ["gear", "steer"]

    run_served(test, weights(actions=NESTED), told)


@pytest.mark.parametrize("recurrent", ["gru", "lstm"])
def test_a_recurrent_state_kept_by_session_and_one_that_the_caller_keeps_give_the_same_actions(
    recurrent, weights, rows, run_served
):
    async def test(server):
        state = None
        for step in range(5):
            kept = await server.compute_actions(rows(2, step), sessions=("a", "b"), want_value=True)
            carried = await server.compute_actions(rows(2, step), state=state, want_value=True)
            state = carried.state
            assert kept.state is None
            np.testing.assert_array_equal(kept.value, carried.value)
        start = np.array([True, False])
        kept = await server.compute_actions(rows(2), sessions=("a", "b"), episode_start=start, want_value=True)
        carried = await server.compute_actions(rows(2), state=state, episode_start=start, want_value=True)
        np.testing.assert_array_equal(kept.value, carried.value)
        assert server.metrics().sessions == 2

    run_served(test, weights(recurrent=recurrent, recurrent_size=4))


def test_a_policy_that_raises_is_told_and_goes_on(rows, function, run_served):
    def act(columns):
        if columns["observation"][0, 0] > 5:
            raise KeyError("lost")
        return np.zeros((len(columns["observation"]), 1), np.int64)

    async def test(server):
        with pytest.raises(PolicyFailed, match="'walker', version 0, raised KeyError"):
            await server.compute_actions(np.full((1, 4), 6, np.float32))
        assert (await server.compute_actions(rows(1))).actions.tolist() == [0]
        assert server.metrics().policies[0].answers == {"policy_failed": 1, "ok": 1}

    for is_quick in (True, False):
        run_served(test, function(act, is_quick=is_quick))


def test_right_behind_its_answer_each_request_is_in_the_measures(weights, rows, run_served):
    async def test(server):
        for asked in range(1, 41):
            await server.compute_actions(rows(asked))
            for _ in range(asked % 3):  # sometimes the loop has turned before somebody looks
                await asyncio.sleep(0)
            if asked % 7 == 0 or asked == 40:
                [told] = server.metrics().policies
                assert sum(told.latency_s.counts) == sum(told.queue_s.counts) == told.answers["ok"] == asked
                assert told.batch_rows.total == asked * (asked + 1) / 2
                assert told.queue_s.total <= told.latency_s.total

    run_served(test, weights())


def test_a_policy_that_fails_at_once_has_a_batch_and_no_latency(weights, rows, run_served):
    async def test(server):
        with pytest.raises(PolicyFailed, match="gave no numbers for row 1"):
            await server.compute_actions(np.concatenate([rows(1), np.full((1, 4), 3e38, np.float32)]))
        [told] = server.metrics().policies
        assert (sum(told.latency_s.counts), sum(told.batch_rows.counts), sum(told.queue_s.counts)) == (0, 1, 1)
        assert told.answers == {"policy_failed": 1}

    run_served(test, weights(activation="relu"))


def test_what_does_not_fit_is_told_with_the_field_before_it_waits(weights, rows, function, run_served):
    async def both(server):
        for observations, field in (
            (rows(1)[:, :3], "observations.observation"),
            (np.full((1, 4), np.nan, np.float32), "observations.observation"),
            ({"camera": rows(1)}, "observations.camera"),
            (None, "observations.observation"),
        ):
            with pytest.raises(BadObservation) as caught:
                await server.compute_actions(observations, policy="walker")
            assert caught.value.field == field
        with pytest.raises(BadRequest) as wanted:
            await server.compute_actions(rows(1), policy="runner", want_value=True)
        assert wanted.value.field == "want_value"
        with pytest.raises(BadRequest, match="there are several policies, runner, walker"):
            await server.compute_actions(rows(1))

    run_served(both, weights(), function())


def test_without_a_policy_nobody_is_ready(rows, run_served):
    async def test(server):
        assert not server.ready()
        with pytest.raises(Unready, match="no policy is served yet"):
            await server.compute_actions(rows(1))
        with pytest.raises(Unready, match="no policy is served yet"):
            await server.act("walker", ActRequest(observations={"observation": rows(1)}))

    run_served(test)

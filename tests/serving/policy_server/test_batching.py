"""A server of policies to which requests come together: what shares a batch, waits, fails alone, or is refused."""

import asyncio
import time

import numpy as np
import pytest

from shoal.rllib.policies.policy import Policy
from shoal.serving.errors import (
    BadRequest,
    Overloaded,
    PolicyFailed,
    TimedOut,
    Unready,
)

#: No test waits longer than this for anything.
DEADLINE_S = 30.0


def test_requests_that_come_together_are_answered_in_one_batch_and_each_as_if_it_were_alone(
    weights, rows, function, run_served
):
    sizes = []
    policy = Policy(weights(3))

    def act(columns):
        sizes.append(len(columns["observation"]))
        return policy.act(columns, deterministic=True)[0]

    async def test(server):
        replies = await asyncio.gather(*(server.compute_actions(rows(3, seed)) for seed in range(4)))
        for seed, reply in enumerate(replies):
            assert reply.actions.tolist() == policy.act(rows(3, seed), deterministic=True)[0][:, 0].tolist()
        assert sizes == [12]

    run_served(test, function(act, is_quick=False))


def test_likeliest_and_drawn_actions_masks_and_wishes_may_share_a_batch(weights, rows, run_served):
    mask = np.array([[True, False, False]] * 64)

    async def test(server):
        likeliest, drawn, masked = await asyncio.gather(
            server.compute_actions(rows(64), want_value=True),
            server.compute_actions(rows(64), deterministic=False),
            server.compute_actions(rows(64), deterministic=False, action_mask=mask, want_log_prob=True),
        )
        expected = Policy(weights()).act(rows(64), deterministic=True)[0]
        assert likeliest.actions.tolist() == expected[:, 0].tolist()
        assert likeliest.log_prob is None
        assert likeliest.value.shape == (64,)
        assert drawn.actions.tolist() != expected[:, 0].tolist()
        assert set(drawn.actions.tolist()) == {0, 1, 2}
        assert masked.actions.tolist() == [0] * 64
        assert np.abs(masked.log_prob).max() == 0.0

    run_served(test, weights(), max_batch_rows=256)


def test_two_requests_of_one_session_act_one_after_the_other(weights, rows, run_served):
    async def test(server):
        together = await asyncio.gather(
            *(server.compute_actions(rows(1, step), sessions=("a",), want_value=True) for step in range(3))
        )
        alone = [await server.compute_actions(rows(1, step), sessions=("b",), want_value=True) for step in range(3)]
        assert [reply.value[0] for reply in together] == [reply.value[0] for reply in alone]

    run_served(test, weights(recurrent="gru", recurrent_size=4))


def test_who_goes_on_with_a_session_that_nothing_is_known_of_is_told_and_others_in_the_batch_are_answered(
    weights, rows, run_served
):
    async def test(server):
        goes_on = np.array([False])
        lost, fresh = await asyncio.gather(
            server.compute_actions(rows(1), sessions=("lost",), episode_start=goes_on),
            server.compute_actions(rows(1), sessions=("new",)),
            return_exceptions=True,
        )
        assert isinstance(lost, BadRequest)
        assert lost.field == "sessions"
        assert fresh.actions.shape == (1,)

    run_served(test, weights(recurrent="gru", recurrent_size=4))


def test_a_row_for_which_no_numbers_come_out_fails_alone(weights, rows, run_served):
    overflowing = rows(1)
    overflowing[0] = 3e38

    async def test(server):
        bad, good = await asyncio.gather(
            server.compute_actions(overflowing), server.compute_actions(rows(1)), return_exceptions=True
        )
        assert isinstance(bad, PolicyFailed)
        assert "'walker', version 0, gave no numbers for row 0" in str(bad)
        assert good.actions.shape == (1,)

    run_served(test, weights(activation="relu"))


def test_a_request_that_waits_for_too_long_is_told_and_not_computed(rows, function, gated, run_served):

    async def test(server):
        first = asyncio.ensure_future(server.compute_actions(rows(1), timeout_s=0.2))
        await asyncio.to_thread(gated.begun.wait, DEADLINE_S)
        with pytest.raises(TimedOut, match=r"not answered within 0\.02 s: it still waited for its turn"):
            await server.compute_actions(rows(7), timeout_s=0.02)
        with pytest.raises(TimedOut, match=r"not answered within 0\.2 s: the policy was still at it"):
            await first
        gated.gate.set()
        await server.compute_actions(rows(2))
        assert gated.seen == [1, 2]

    run_served(test, function(gated, is_quick=False))


@pytest.mark.parametrize("is_watched", [False, True], ids=["at once", "in a batch"])
def test_an_answer_that_is_there_too_late_is_none_however_quick_the_policy_and_the_session_stays_where_it_was(
    weights, rows, run_served, is_watched
):
    def gru(version):
        return weights(version, recurrent="gru", recurrent_size=4)

    async def test(server):
        if is_watched:  # what a shadow sees is not answered at once
            await server.load("walker", gru(1), is_shadow=True)
        with pytest.raises(TimedOut) as told:
            await server.compute_actions(rows(1), sessions=("a",), timeout_s=1e-9)
        assert str(told.value) == "not answered within 1e-09 s: the policy was still at it"
        assert server.metrics().sessions == 0
        assert server.metrics().policies[0].answers == {"timed_out": 1}

    run_served(test, gru(0))


def test_a_caller_that_is_gone_is_not_computed_for(rows, function, gated, run_served):

    async def test(server):
        first = asyncio.ensure_future(server.compute_actions(rows(1)))
        await asyncio.to_thread(gated.begun.wait, DEADLINE_S)
        gone = asyncio.ensure_future(server.compute_actions(rows(7)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        gated.gate.set()
        await first
        await server.compute_actions(rows(2))
        assert gated.seen == [1, 2]
        assert server.metrics().policies[0].in_flight == 0

    run_served(test, function(gated, is_quick=False))


def test_when_too_much_waits_the_rest_is_refused_at_once_with_a_time_to_come_back(rows, function, run_served):
    async def test(server):
        asked = [asyncio.ensure_future(server.compute_actions(rows(4))) for _ in range(10)]
        answered = await asyncio.gather(*asked, return_exceptions=True)
        refused = [each for each in answered if isinstance(each, Overloaded)]
        assert len(refused) == 6
        assert all(each.retry_after_s >= 0.0 for each in refused)
        assert server.metrics().policies[0].answers == {"ok": 4, "overloaded": 6}

    def act(columns):
        time.sleep(0.02)
        return np.zeros((len(columns["observation"]), 1), np.int64)

    run_served(test, function(act, is_quick=False), max_batch_rows=8, max_waiting_rows=16, max_request_rows=8)


def test_a_server_that_leaves_answers_what_it_has_and_takes_nothing_more(rows, function, gated, run_served):

    async def test(server):
        asked = asyncio.ensure_future(server.compute_actions(rows(1)))
        await asyncio.to_thread(gated.begun.wait, DEADLINE_S)
        assert server.ready()
        drained = asyncio.ensure_future(server.drain(DEADLINE_S))
        await asyncio.sleep(0)
        assert not server.ready()
        with pytest.raises(Unready, match="the server is leaving"):
            await server.compute_actions(rows(1))
        gated.gate.set()
        assert await drained
        assert (await asked).actions.tolist() == [0]

    run_served(test, function(gated, is_quick=False))

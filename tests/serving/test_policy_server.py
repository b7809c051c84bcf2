"""A server of policies on an event loop of the test's own: what it answers, what it refuses, what changes when."""

import asyncio
import dataclasses
import threading
import time

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.training import checkpoints
from shoal.rllib.training.checkpoints import Checkpoint
from shoal.serving.errors import (
    BadObservation,
    BadRequest,
    Overloaded,
    PolicyFailed,
    PolicyNotFound,
    TimedOut,
    Unready,
)
from shoal.serving.models import FunctionModel, PolicyModel
from shoal.serving.policies import RefusedError
from shoal.serving.policy_server import PolicyServer
from shoal.serving.requests import ActRequest
from shoal.serving.serving_settings import ServingSettings
from shoal.serving.spaces import space_form

#: No test waits longer than this for anything.
DEADLINE_S = 30.0
OBSERVATION, CHOICE = spaces.Box(-10, 10, (4,), np.float32), spaces.Discrete(3)


def weights(version=0, *, seed=None, actions=CHOICE, observations=OBSERVATION, **network):
    spec = policy_spec("a test's", observations, actions, NetworkSettings(hidden_sizes=(8,), **network))
    arrays = initial_weights(spec, version if seed is None else seed)
    # Heads begin nearly without weights; a test wants actions that differ.
    return Weights(
        version, spec, {name: array * (50 if "policy.head" in name else 1) for name, array in arrays.items()}
    )


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def served(test, *policies, **settings):
    """Run a test with a server of these policies: "walker" first."""

    async def run():
        names = dict(zip(("walker", "runner"), policies, strict=False))
        server = PolicyServer(names, settings=ServingSettings(**settings), is_alone=False)
        await test(server)
        assert await server.drain(1.0)

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


async def until(condition):
    for _ in range(int(DEADLINE_S / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not come")


def function(act, *, is_quick=True):
    return FunctionModel(act, space_form(OBSERVATION), space_form(CHOICE), is_quick=is_quick)


def zeros(columns):
    return np.zeros((len(columns["observation"]), 1), np.int64)


def slow(seconds):
    def act(columns):
        time.sleep(seconds)
        return zeros(columns)

    return function(act, is_quick=False)


def test_actions_are_those_of_the_policy_with_version_log_probability_and_value():
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

    served(test, weights(3))


def test_spaces_that_a_server_is_told_are_those_of_later_versions_too():
    async def run():
        told = {"walker": (space_form(OBSERVATION), space_form(NESTED))}
        server = PolicyServer({"walker": weights(actions=NESTED)}, spaces=told, is_alone=False)
        for version in (0, 4):
            assert [*(await server.compute_actions(rows(1))).actions] == ["gear", "steer"]
            assert server.infos()[0].versions[0].number == version
            if version == 0:
                await server.swap("walker", weights(4, actions=NESTED))

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_a_policy_that_acts_in_torch_gives_the_same_actions_from_the_thread_and_refuses_memory():
    async def test(server):
        replies = await asyncio.gather(*(server.compute_actions(rows(5, seed), want_value=True) for seed in range(3)))
        for seed, reply in enumerate(replies):
            policy = Policy(weights(3))
            assert reply.actions.tolist() == policy.act(rows(5, seed), deterministic=True)[0][:, 0].tolist()
            np.testing.assert_allclose(reply.value, policy.values(rows(5, seed)), rtol=1e-4, atol=1e-5)
        with pytest.raises(RefusedError, match="inference_device must be cpu for recurrent policies"):
            await server.load("runner", weights(recurrent="gru"))

    served(test, weights(3), device="auto")


def test_requests_that_come_together_are_answered_in_one_batch_and_each_as_if_it_were_alone():
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

    served(test, function(act, is_quick=False))


def test_likeliest_and_drawn_actions_masks_and_wishes_may_share_a_batch():
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

    served(test, weights(), max_batch_rows=256)


NESTED = spaces.Dict({"gear": spaces.Discrete(3, start=-1), "steer": spaces.Box(-1, 1, (2,), np.float32)})


def test_actions_have_the_structure_of_their_space_or_what_the_policys_shape_tells_of_it():
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

    served(test, weights(actions=NESTED), told)


@pytest.mark.parametrize("recurrent", ["gru", "lstm"])
def test_a_recurrent_state_kept_by_session_and_one_that_the_caller_keeps_give_the_same_actions(recurrent):
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

    served(test, weights(recurrent=recurrent, recurrent_size=4))


def test_two_requests_of_one_session_act_one_after_the_other():
    async def test(server):
        together = await asyncio.gather(
            *(server.compute_actions(rows(1, step), sessions=("a",), want_value=True) for step in range(3))
        )
        alone = [await server.compute_actions(rows(1, step), sessions=("b",), want_value=True) for step in range(3)]
        assert [reply.value[0] for reply in together] == [reply.value[0] for reply in alone]

    served(test, weights(recurrent="gru", recurrent_size=4))


def test_who_goes_on_with_a_session_that_nothing_is_known_of_is_told_and_others_in_the_batch_are_answered():
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

    served(test, weights(recurrent="gru", recurrent_size=4))


def test_weights_change_between_batches_and_each_answer_tells_its_version():
    async def test(server):
        asked = [asyncio.ensure_future(server.compute_actions(rows(1, i))) for i in range(5)]
        await asyncio.sleep(0)
        assert await server.swap("walker", weights(9)) == 9
        asked += [asyncio.ensure_future(server.compute_actions(rows(1, i))) for i in range(5)]
        policy = {version: Policy(weights(version)) for version in (3, 9)}
        for i, reply in enumerate(await asyncio.gather(*asked)):
            assert (
                reply.actions.tolist()
                == policy[reply.version].act(rows(1, i % 5), deterministic=True)[0][:, 0].tolist()
            )
        assert reply.version == 9
        assert [(each.number, each.state) for each in server.infos()[0].versions] == [(9, "serving"), (3, "retired")]

    served(test, weights(3))


def test_a_batch_that_runs_when_weights_change_is_of_the_old_ones():
    model = Gated()

    async def test(server):
        running = asyncio.ensure_future(server.compute_actions(rows(1)))
        await asyncio.to_thread(model.begun.wait, DEADLINE_S)
        assert await server.load("walker", function(zeros)) == 1
        model.gate.set()
        waiting = await server.compute_actions(rows(1))
        assert ((await running).version, waiting.version) == (0, 1)

    served(test, function(model, is_quick=False))


def test_weights_that_do_not_fit_or_are_no_numbers_are_refused_and_the_old_ones_serve_on(tmp_path):
    broken = weights(5)
    broken.arrays["policy.head.weight"][0, 0] = np.nan
    others = {
        "its action_space": weights(5, actions=spaces.Discrete(4)),
        "its observation_space": weights(5, observations=spaces.Box(-1, 1, (5,), np.float32)),
        "its state_size": weights(5, recurrent="gru"),
        "numbers that are not finite": broken,
        "not newer than 3": weights(2),
        "is no directory": tmp_path / "nowhere",
    }

    async def test(server):
        for reason, source in others.items():
            with pytest.raises(RefusedError, match=reason):
                await server.load("walker", source, version=2 if "newer" in reason else None)
        assert len(server.refusals()) == server.metrics().refused_weights == len(others)
        assert (await server.compute_actions(rows(1))).version == 3

    served(test, weights(3))


def saved(place, made):
    return checkpoints.save(
        Checkpoint("ppo", {}, {"iteration": made.version, "steps": made.version}, {"policy": dict(made.arrays)},
                   {"policy_spec": made.spec.to_dict()}),
        place,
    )  # fmt: skip


def test_a_checkpoint_is_served_and_a_damaged_one_refused(tmp_path):
    whole, damaged = saved(tmp_path / "whole", weights(4)), saved(tmp_path / "damaged", weights(5))
    file = damaged / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")

    async def test(server):
        assert await server.load("walker", whole) == 4
        with pytest.raises(RefusedError, match="damaged"):
            await server.load("walker", damaged)
        reply = await server.compute_actions(rows(5))
        assert reply.version == 4
        assert reply.actions.tolist() == Policy(weights(4)).act(rows(5), deterministic=True)[0][:, 0].tolist()

    served(test, weights(3))


def test_a_run_is_followed_past_a_checkpoint_that_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("shoal.serving.policy_server._FOLLOW_S", 0.02)
    saved(checkpoints.place_for(tmp_path, 1), weights(1))

    async def test(server):
        assert server.infos()[0].versions[0].source == str(checkpoints.place_for(tmp_path, 1))
        server.follow("walker", tmp_path)
        damaged = saved(checkpoints.place_for(tmp_path, 2), weights(2))
        (damaged / "policy.safetensors").write_bytes(b"")
        await until(server.refusals)
        assert (await server.compute_actions(rows(1))).version == 1
        saved(checkpoints.place_for(tmp_path, 3), weights(3))
        await until(lambda: server.infos()[0].versions[0].number == 3)
        assert (await server.compute_actions(rows(1))).version == 3

    served(test, tmp_path)


def test_a_server_goes_on_with_the_newest_weights_of_the_one_before(tmp_path):
    async def run():
        server = PolicyServer({"walker": weights(1)}, journal=tmp_path, is_alone=False)
        for version in range(2, 30):
            await server.swap("walker", weights(version))
        await server._writing
        again = PolicyServer({"walker": weights(1)}, journal=tmp_path, is_alone=False)
        reply = await again.compute_actions(rows(5))
        assert reply.version == 29
        assert reply.actions.tolist() == Policy(weights(29)).act(rows(5), deterministic=True)[0][:, 0].tolist()
        newer = PolicyServer({"walker": weights(40)}, journal=tmp_path, is_alone=False)
        assert (await newer.compute_actions(rows(5))).version == 40
        await newer._writing

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_traffic_is_split_and_a_session_stays_with_its_version():
    async def test(server):
        server.share("walker", {1: 0.5})
        await server.swap("walker", weights(2))
        versions = {}
        for _ in range(2):
            for session in map(str, range(40)):
                reply = await server.compute_actions(rows(1), sessions=(session,))
                assert versions.setdefault(session, reply.version) == reply.version
        assert set(versions.values()) == {1, 2}
        assert (await server.compute_actions(rows(1), policy="walker:1")).version == 1
        assert server.infos()[0].traffic == {1: 0.5, 2: 0.5}
        server.share("walker", {})
        with pytest.raises(PolicyNotFound, match="version 1 of 'walker' is retired"):
            await server.compute_actions(rows(1), policy="walker:1")

    served(test, weights(1))


def test_a_shadow_sees_what_is_asked_and_its_agreement_is_counted():
    async def test(server):
        await server.load("walker", dataclasses.replace(weights(2), arrays=weights(1).arrays), is_shadow=True)
        await server.load("walker", weights(3), is_shadow=True)
        assert {(await server.compute_actions(rows(8, seed))).version for seed in range(8)} == {1}
        await asyncio.sleep(0)
        await server.compute_actions(rows(1))  # behind the shadows of those before
        told = {each.policy: each.answers for each in server.metrics().policies}
        assert told["walker:2"]["agrees"] >= 64
        assert told["walker:2"]["differs"] == 0
        assert told["walker:3"]["differs"] > 0
        server.promote("walker", 3)
        assert (await server.compute_actions(rows(1))).version == 3

    served(test, weights(1))


def test_a_row_for_which_no_numbers_come_out_fails_alone():
    overflowing = rows(1)
    overflowing[0] = 3e38

    async def test(server):
        bad, good = await asyncio.gather(
            server.compute_actions(overflowing), server.compute_actions(rows(1)), return_exceptions=True
        )
        assert isinstance(bad, PolicyFailed)
        assert "'walker', version 0, gave no numbers for row 0" in str(bad)
        assert good.actions.shape == (1,)

    served(test, weights(activation="relu"))


def test_a_policy_that_raises_is_told_and_goes_on():
    def act(columns):
        if columns["observation"][0, 0] > 5:
            raise KeyError("lost")
        return zeros(columns)

    async def test(server):
        with pytest.raises(PolicyFailed, match="'walker', version 0, raised KeyError"):
            await server.compute_actions(np.full((1, 4), 6, np.float32))
        assert (await server.compute_actions(rows(1))).actions.tolist() == [0]
        assert server.metrics().policies[0].answers == {"policy_failed": 1, "ok": 1}

    for is_quick in (True, False):
        served(test, function(act, is_quick=is_quick))


class Gated:
    """A slow model that acts when it is let, and remembers how many rows it saw."""

    def __init__(self):
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.seen = []

    def __call__(self, columns):
        self.seen.append(len(columns["observation"]))
        self.begun.set()
        assert self.gate.wait(DEADLINE_S)
        return zeros(columns)


def test_a_request_that_waits_for_too_long_is_told_and_not_computed():
    model = Gated()

    async def test(server):
        first = asyncio.ensure_future(server.compute_actions(rows(1), timeout_s=0.2))
        await asyncio.to_thread(model.begun.wait, DEADLINE_S)
        with pytest.raises(TimedOut, match=r"not answered within 0\.02 s: it still waited for its turn"):
            await server.compute_actions(rows(7), timeout_s=0.02)
        with pytest.raises(TimedOut, match=r"not answered within 0\.2 s: the policy was still at it"):
            await first
        model.gate.set()
        await server.compute_actions(rows(2))
        assert model.seen == [1, 2]

    served(test, function(model, is_quick=False))


def test_a_caller_that_is_gone_is_not_computed_for():
    model = Gated()

    async def test(server):
        first = asyncio.ensure_future(server.compute_actions(rows(1)))
        await asyncio.to_thread(model.begun.wait, DEADLINE_S)
        gone = asyncio.ensure_future(server.compute_actions(rows(7)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        await first
        await server.compute_actions(rows(2))
        assert model.seen == [1, 2]
        assert server.metrics().policies[0].in_flight == 0

    served(test, function(model, is_quick=False))


def test_when_too_much_waits_the_rest_is_refused_at_once_with_a_time_to_come_back():
    async def test(server):
        asked = [asyncio.ensure_future(server.compute_actions(rows(4))) for _ in range(10)]
        answered = await asyncio.gather(*asked, return_exceptions=True)
        refused = [each for each in answered if isinstance(each, Overloaded)]
        assert len(refused) == 6
        assert all(each.retry_after_s >= 0.0 for each in refused)
        assert server.metrics().policies[0].answers == {"ok": 4, "overloaded": 6}

    served(test, slow(0.02), max_batch_rows=8, max_waiting_rows=16, max_request_rows=8)


def test_what_does_not_fit_is_told_with_the_field_before_it_waits():
    async def both(server):
        for observations, field in (
            (rows(1)[:, :3], "observations.observation"),
            (np.full((1, 4), np.nan, np.float32), "observations.observation"),
            ({"camera": rows(1)}, "observations.camera"),
        ):
            with pytest.raises(BadObservation) as caught:
                await server.compute_actions(observations, policy="walker")
            assert caught.value.field == field
        with pytest.raises(BadRequest) as wanted:
            await server.compute_actions(rows(1), policy="runner", want_value=True)
        assert wanted.value.field == "want_value"
        with pytest.raises(BadRequest, match="there are several policies, runner, walker"):
            await server.compute_actions(rows(1))

    served(both, weights(), function(zeros))


def test_a_server_that_leaves_answers_what_it_has_and_takes_nothing_more():
    model = Gated()

    async def test(server):
        asked = asyncio.ensure_future(server.compute_actions(rows(1)))
        await asyncio.to_thread(model.begun.wait, DEADLINE_S)
        assert server.ready()
        drained = asyncio.ensure_future(server.drain(DEADLINE_S))
        await asyncio.sleep(0)
        assert not server.ready()
        with pytest.raises(Unready, match="the server is leaving"):
            await server.compute_actions(rows(1))
        model.gate.set()
        assert await drained
        assert (await asked).actions.tolist() == [0]

    served(test, function(model, is_quick=False))


def test_without_a_policy_nobody_is_ready():
    async def test(server):
        assert not server.ready()
        with pytest.raises(Unready, match="no policy is served yet"):
            await server.compute_actions(rows(1))
        with pytest.raises(Unready, match="no policy is served yet"):
            await server.act("walker", ActRequest(observations={"observation": rows(1)}))

    served(test)

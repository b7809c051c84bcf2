"""A server of policies whose weights change: what is refused, who gets which version."""

import asyncio
import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from shoal.rllib.policies.policy import Policy
from shoal.rllib.training import checkpoints
from shoal.rllib.training.checkpoints import Checkpoint
from shoal.serving.errors import (
    PolicyNotFound,
)
from shoal.serving.policies import RefusedError
from shoal.serving.policy_server import PolicyServer
from shoal.serving.spaces import space_form

#: No test waits longer than this for anything.
DEADLINE_S = 30.0
OBSERVATION = spaces.Box(-10, 10, (4,), np.float32)
NESTED = spaces.Dict({"gear": spaces.Discrete(3, start=-1), "steer": spaces.Box(-1, 1, (2,), np.float32)})


def test_weights_change_between_batches_and_each_answer_tells_its_version(weights, rows, run_served):
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

    run_served(test, weights(3))


def test_a_batch_that_runs_when_weights_change_is_of_the_old_ones(rows, function, gated, run_served):

    async def test(server):
        running = asyncio.ensure_future(server.compute_actions(rows(1)))
        await asyncio.to_thread(gated.begun.wait, DEADLINE_S)
        assert await server.load("walker", function()) == 1
        gated.gate.set()
        waiting = await server.compute_actions(rows(1))
        assert ((await running).version, waiting.version) == (0, 1)

    run_served(test, function(gated, is_quick=False))


def test_weights_that_do_not_fit_or_are_no_numbers_are_refused_and_the_old_ones_serve_on(
    tmp_path, weights, rows, run_served
):
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

    run_served(test, weights(3))


def saved(place, made):
    return checkpoints.save(
        Checkpoint("ppo", {}, {"iteration": made.version, "steps": made.version}, {"policy": dict(made.arrays)},
                   {"policy_spec": made.spec.to_dict()}),
        place,
    )  # fmt: skip


def test_a_checkpoint_is_served_and_a_damaged_one_refused(tmp_path, weights, rows, run_served):
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

    run_served(test, weights(3))


async def until(condition):
    for _ in range(int(DEADLINE_S / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not come")


def test_a_run_is_followed_past_a_checkpoint_that_is_damaged(tmp_path, monkeypatch, weights, rows, run_served):
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

    run_served(test, tmp_path)


def test_a_server_goes_on_with_the_newest_weights_of_the_one_before(tmp_path, weights, rows):
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


def test_spaces_that_a_server_is_told_are_those_of_later_versions_too(weights, rows):
    async def run():
        told = {"walker": (space_form(OBSERVATION), space_form(NESTED))}
        server = PolicyServer({"walker": weights(actions=NESTED)}, spaces=told, is_alone=False)
        for version in (0, 4):
            assert [*(await server.compute_actions(rows(1))).actions] == ["gear", "steer"]
            assert server.infos()[0].versions[0].number == version
            if version == 0:
                await server.swap("walker", weights(4, actions=NESTED))

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def test_traffic_is_split_and_a_session_stays_with_its_version(weights, rows, run_served):
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

    run_served(test, weights(1))


def test_a_shadow_sees_what_is_asked_and_its_agreement_is_counted(weights, rows, run_served):
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

    run_served(test, weights(1))

"""The rollout worker as a plain object; ``test_algorithm.py`` has it in actors."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest

from shoal.envs import probes
from shoal.envs.columns import ONLY
from shoal.envs.probes import Corridor
from shoal.envs.vector import Checks, EnvFailure
from shoal.rllib.config import ConfigError
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy_spec import NetworkSettings
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.env_runner import EnvRunner


def runner_of(env_id="CartPole-v1", env_indices=(0, 1), **kwargs):
    return EnvRunner(env_id=env_id, worker_index=0, env_indices=list(env_indices), seed=0, **kwargs)


def weights_for(runner, version=0, seed=1, **network):
    spec = runner.policy_spec(NetworkSettings(hidden_sizes=(16,), **network))
    state = ActorCritic(spec, seed).nets.state_dict()
    return Weights(version, spec, {name: tensor.numpy() for name, tensor in state.items()})


def test_the_same_request_gives_the_same_batch_to_the_last_bit():
    first, second = runner_of(), runner_of()
    weights = weights_for(first)
    for iteration in range(3):
        mine, its = (runner.collect(weights, 20, iteration).batch for runner in (first, second))
        np.testing.assert_array_equal(mine.observations[ONLY], its.observations[ONLY])
        np.testing.assert_array_equal(mine.log_probs, its.log_probs)


def test_a_replacement_and_a_resumed_runner_start_episodes_of_their_own():
    starts = []
    for made in ({}, {"replacement": 1}, {"resumed_at": 5}):
        runner = runner_of(**made)
        starts.append(runner.collect(weights_for(runner), 1, 0).batch.observations[ONLY][0].tolist())
    runner = runner_of()
    runner.resume(5, None)
    assert runner.collect(weights_for(runner), 1, 0).batch.observations[ONLY][0].tolist() == starts[2]
    assert starts[0] != starts[1] != starts[2] != starts[0]


def test_resuming_drops_the_episodes_under_way():
    runner = runner_of("shoal.envs.probes:Corridor", [0])
    runner.collect(weights_for(runner), 3, 0)
    runner.resume(1, None)
    assert runner.collect(weights_for(runner), 2, 1).batch.observations[ONLY][:, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize("network", [{}, {"recurrent": "lstm", "recurrent_size": 4, "sequence_length": 7}], ids=str)
@pytest.mark.parametrize("env_id", ["CartPole-v1", "shoal.envs.probes:Corridor"])
def test_a_runner_goes_on_from_the_state_of_another_to_the_last_bit(env_id, network):
    first = runner_of(env_id)
    weights = weights_for(first, **network)
    state = first.collect(weights, 60, 0).state
    expected = first.collect(weights, 30, 1)
    resumed = runner_of(env_id)
    resumed.collect(weights, 7, 0)
    resumed.resume(0, state)
    for heir in (runner_of(env_id, state=state, replacement=0), resumed):
        collected = heir.collect(weights, 30, 1)
        np.testing.assert_array_equal(collected.batch.observations[ONLY], expected.batch.observations[ONLY])
        for name in ("rewards", "starts", "values") + (("states",) if network else ()):
            np.testing.assert_array_equal(getattr(collected.batch, name), getattr(expected.batch, name), err_msg=name)
        assert collected.batch.episodes == expected.batch.episodes
        assert collected.incidents == ()


def test_evaluation_leaves_the_training_episodes_where_they_were():
    runner = runner_of("shoal.envs.probes:Corridor", [0])
    weights = weights_for(runner)
    runner.collect(weights, 3, 0)
    assert [episode.length for episode in runner.evaluate(weights, [0, 1])] == [5, 5]
    assert runner.collect(weights, 2, 1).batch.observations[ONLY][:, 0, 0].tolist() == [3, 4]


def test_making_a_runner_makes_no_environment_so_that_failures_belong_to_a_call():
    runner = runner_of("shoal.envs.probes:FailsToStart")
    with pytest.raises(EnvFailure, match="worker 0, environment 0: its constructor raised OSError"):
        runner.policy_spec(NetworkSettings())


def test_an_environment_that_only_the_driver_knows_is_told_with_what_to_do():
    with pytest.raises(ConfigError, match=r"'Mine-v0'.* in rollout worker 0; if the driver's own program de"):
        runner_of("Mine-v0").policy_spec(NetworkSettings())


def test_a_network_that_does_not_fit_is_refused_before_anything_is_stepped():
    with pytest.raises(ConfigError, match="network: nature_cnn needs images"):
        runner_of().policy_spec(NetworkSettings(network="nature_cnn"))


def test_rollouts_need_no_torch():
    program = """
import sys
from shoal.rllib.rollouts.env_runner import EnvRunner
from shoal.rllib.policies.policy_spec import NetworkSettings
from shoal.rllib.policies.weights import Weights
import numpy as np
runner = EnvRunner(env_id="CartPole-v1", worker_index=0, env_indices=[0, 1], seed=0)
spec = runner.policy_spec(NetworkSettings(hidden_sizes=(8,), recurrent="lstm", recurrent_size=4))
weights = Weights(0, spec, {name: np.ones(shape, np.float32) for name, shape in spec.array_shapes().items()})
runner.collect(weights, 5, 0)
runner.evaluate(weights, [0])
assert "torch" not in sys.modules, "torch was imported"
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_processes_of_a_worker_change_nothing_to_the_last_bit():
    alone, apart = runner_of(env_indices=range(5)), runner_of(env_indices=range(5), vector="parallel", num_processes=2)
    weights = weights_for(alone)
    for iteration in range(3):
        mine, its = (runner.collect(weights, 40, iteration) for runner in (alone, apart))
        np.testing.assert_array_equal(mine.batch.rewards, its.batch.rewards)
        np.testing.assert_array_equal(mine.batch.log_probs, its.batch.log_probs)
        assert mine.batch.episodes == its.batch.episodes
        for name, array in mine.state.items():
            np.testing.assert_array_equal(array, its.state[name])
    assert mine.batch.episodes


def test_another_librarys_environments_have_no_state_to_go_on_from():
    collected = (runner := runner_of(vector="gymnasium")).collect(weights_for(runner), 60, 0)
    assert collected.state is None
    assert not collected.batch.valid.all()
    assert collected.batch.episodes


@pytest.mark.parametrize(
    ("env_id", "vector", "told"),
    [
        ("CartPole-v1+time_limit=9", "batched", "^env: CartPole-v1 by batched takes no wrappers"),
        (
            "CartPole-v1",
            "envpool",
            r"^env: CartPole-v1 in EnvPool needs the library envpool: pip install 'shoal\[envpo",
        ),
    ],
)
def test_what_an_implementation_lacks_is_an_error_of_the_setting(env_id, vector, told, monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ConfigError, match=told):
        runner_of(env_id, vector=vector).policy_spec(NetworkSettings())


@pytest.mark.parametrize(
    ("checks", "told"),
    [
        (Checks(finite=False), None),
        (Checks(), "worker 0, environment 0: its step 4 gave the reward nan"),
        (Checks(bounds=True), "worker 0, environment 0: its step 2 gave an observation outside its space"),
    ],
)
def test_which_numbers_are_refused_is_a_setting_of_training_and_evaluation(monkeypatch, checks, told):
    class Wrong(Corridor):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            stray, spoilt = self._position == 2, self._position == 4
            return observation + 10.0 * stray, float("nan") if spoilt else reward, *rest

    monkeypatch.setattr(probes, "Corridor", Wrong)
    for work, arguments in (("collect", (12, 0)), ("evaluate", ([0],))):
        runner = runner_of("shoal.envs.probes:Corridor", [0], checks=checks)
        weights = weights_for(runner)
        with pytest.raises(EnvFailure, match=told) if told else contextlib.nullcontext():
            getattr(runner, work)(weights, *arguments)


def test_where_environments_stand_before_the_first_step_is_known_and_changes_nothing():
    asked, not_asked = runner_of(), runner_of()
    weights = weights_for(asked)
    state = asked.begin(weights)
    assert state["length"].tolist() == [0, 0]
    assert asked.begin(weights)["begins"].all()
    heir = runner_of(state=state)
    expected = not_asked.collect(weights, 20, 0).batch.observations[ONLY]
    for runner in (asked, heir):
        np.testing.assert_array_equal(runner.collect(weights, 20, 0).batch.observations[ONLY], expected)
    assert runner_of(vector="gymnasium").begin(weights) is None

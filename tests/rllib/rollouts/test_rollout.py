"""Rollouts on toy MDPs: every row must be a true transition with the value of its true successor."""

import contextlib
import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.columns import ONLY
from shoal.envs.opening import open_vector
from shoal.envs.probes import Corridor, EndlessCorridor, Target
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv
from shoal.rllib import streams
from shoal.rllib.learning.advantages import gae
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.batch import concatenate
from shoal.rllib.rollouts.rollout import Memory, collect, reevaluated, revalued

GAMMA = 0.9


class ExactCritic(Policy):
    """A random policy that knows the values."""

    def __init__(self, weights, value_of):
        super().__init__(weights)
        self._value_of = value_of

    def values(self, observations, states=None):
        return np.array([self._value_of(row[0]) for row in observations[ONLY]], np.float32)


def weights_for(envs, version=0, **network):
    settings = NetworkSettings(**{"hidden_sizes": (16,), **network})
    spec = policy_spec("toy", envs.observation_space, envs.action_space, settings)
    nets = ActorCritic(spec, seed=1).nets
    arrays = {name: tensor.numpy() for name, tensor in nets.state_dict().items()}
    arrays["value.head.bias"] += 0.5  # a walk begins with the observation 0, which would be worth nothing
    return Weights(version, spec, arrays)


def opened(make, count=2):
    envs = SerialVectorEnv(make, range(count), EpisodeSeeds(0))
    envs.reset()
    return envs


def rollouts(envs, policy, num_steps, count=1):
    """So many in a row."""
    memory = Memory.of_new_episodes(policy, envs.num_envs)
    for iteration in range(count):
        action_streams = streams.action_streams(0, range(envs.num_envs), iteration)
        yield collect(envs, policy, num_steps, action_streams, memory)


def rollout(envs, policy, num_steps):
    return next(rollouts(envs, policy, num_steps))


@pytest.mark.parametrize("num_steps", [1, 4, 5, 13])
def test_with_the_exact_values_of_a_walk_that_ends_no_advantage_is_left(num_steps):
    envs = opened(lambda: Corridor(length=5))
    policy = ExactCritic(weights_for(envs), lambda position: (1 - GAMMA ** (5 - position)) / (1 - GAMMA))
    for batch in rollouts(envs, policy, num_steps, 3):
        flags = batch.terminated, batch.truncated, batch.valid
        advantages, _ = gae(batch.rewards, batch.values, batch.next_values, *flags, gamma=GAMMA, lam=0.7)
        np.testing.assert_allclose(advantages, 0.0, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 4, 5, 13])
def test_with_the_exact_values_of_a_walk_that_is_cut_no_advantage_is_left(num_steps):
    envs = opened(lambda: EndlessCorridor(length=5))
    policy = ExactCritic(weights_for(envs), lambda _: 1 / (1 - GAMMA))
    for batch in rollouts(envs, policy, num_steps, 3):
        flags = batch.terminated, batch.truncated, batch.valid
        advantages, _ = gae(batch.rewards, batch.values, batch.next_values, *flags, gamma=GAMMA, lam=0.7)
        np.testing.assert_allclose(advantages, 0.0, atol=1e-5)


def test_a_cut_takes_the_value_of_the_last_observation_and_not_of_the_reset_that_followed():
    envs = opened(lambda: EndlessCorridor(length=3), 1)
    policy = ExactCritic(weights_for(envs), lambda position: 100.0 + position)
    batch = rollout(envs, policy, 7)
    assert batch.values[:, 0].tolist() == [100, 101, 102, 100, 101, 102, 100]
    assert batch.next_values[:, 0].tolist() == [101, 102, 103, 101, 102, 103, 101]
    assert batch.truncated[:, 0].tolist() == [False, False, True, False, False, True, False]
    assert not batch.terminated.any()


def test_an_end_has_no_successor():
    envs = opened(lambda: Corridor(length=3), 1)
    batch = rollout(envs, ExactCritic(weights_for(envs), lambda position: 100.0 + position), 4)
    assert batch.next_values[:, 0].tolist() == [101, 102, 0, 101]
    assert batch.terminated[:, 0].tolist() == [False, False, True, False]


def test_the_next_rollout_goes_on_where_the_last_one_stopped():
    envs = opened(lambda: Corridor(length=5), 1)
    policy = Policy(weights_for(envs))
    positions = [batch.observations[ONLY][:, 0, 0].tolist() for batch in rollouts(envs, policy, 3, 3)]
    assert positions == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_log_probs_belong_to_the_stored_actions_before_clipping():
    envs = opened(Target, 3)
    policy = Policy(weights_for(envs))
    batch = rollout(envs, policy, 40)
    flat = batch.actions.reshape(-1, 1)
    assert np.abs(flat).max() > 1.0  # the environment refuses such actions, so it was sent clipped ones
    parameters = policy.step({ONLY: batch.observations[ONLY].reshape(-1, 1)}, policy.initial_states(120)).parameters
    expected = policy.spec.actions.distribution.log_prob(parameters, flat)
    np.testing.assert_array_equal(batch.log_probs.reshape(-1), expected)
    np.testing.assert_array_equal(reevaluated(batch, policy).log_probs, batch.log_probs)


@pytest.mark.parametrize("network", [{}, {"recurrent": "lstm", "recurrent_size": 8, "sequence_length": 3}])
def test_one_rollout_of_four_copies_is_two_of_two_side_by_side_to_the_last_bit(network):
    def of(indices):
        envs = SerialVectorEnv(EndlessCorridor, indices, streams.environment_seeds(0, 0, 0))
        envs.reset()
        policy = Policy(weights_for(envs, **network))
        memory = Memory.of_new_episodes(policy, len(indices))
        return collect(envs, policy, 20, streams.action_streams(0, indices, 0), memory)

    same(of([0, 1, 2, 3]), concatenate([of([0, 1]), of([2, 3])]))


def same(one, other):
    """All that two batches hold, to the last bit."""
    for field in dataclasses.fields(one):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, dict):
            mine, its = mine[ONLY], its[ONLY]
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, its, err_msg=field.name)
        else:
            assert mine == its, field.name


@pytest.mark.parametrize("network", [{}, {"recurrent": "lstm", "recurrent_size": 8, "sequence_length": 3}])
@pytest.mark.parametrize(
    "stepped", [*({"vector": "parallel", "num_processes": 1, "num_groups": n} for n in (1, 2, 3)), {"num_groups": 2}]
)
def test_copies_that_are_stepped_in_parts_give_the_rollout_of_those_that_are_not(network, stepped):
    whole, parts = (
        open_vector("shoal.envs.probes:EndlessCorridor", range(5), EpisodeSeeds(0), **options)
        for options in ({}, stepped)
    )
    weights = weights_for(whole, **network)
    with contextlib.closing(parts):
        for envs in (whole, parts):
            envs.reset()
        for mine, its in zip(*(rollouts(envs, Policy(weights), 13, 2) for envs in (whole, parts)), strict=True):
            same(mine, its)


def test_while_the_policy_acts_for_one_part_the_others_are_on_their_way(monkeypatch):
    envs = open_vector(
        "shoal.envs.probes:Corridor", range(4), EpisodeSeeds(0), vector="parallel", num_processes=1, num_groups=2
    )
    told, policy = [], Policy(weights_for(envs))
    begin, end, act = envs.step_async, envs.step_wait, policy.step
    monkeypatch.setattr(envs, "step_async", lambda part, actions: (told.append(f"begin {part}"), begin(part, actions)))
    monkeypatch.setattr(envs, "step_wait", lambda part: (told.append(f"end {part}"), end(part)))
    monkeypatch.setattr(policy, "step", lambda *seen: (told.append("act"), act(*seen))[1])
    with contextlib.closing(envs):
        envs.reset()
        rollout(envs, policy, 3)
    first = ["act", "begin 0", "act", "begin 1"]
    later = ["end 0", "act", "begin 0", "end 1", "act", "begin 1"]
    assert told == [*first, *later, *later, "end 0", "end 1"]


class Elsewhere(Policy):
    """A policy that says that another process answers."""

    is_elsewhere = True


@pytest.mark.parametrize("vector", ["serial", "parallel"])
def test_while_somebody_else_acts_for_one_part_the_others_go_on(monkeypatch, vector):
    envs = open_vector(
        "shoal.envs.probes:Corridor", range(4), EpisodeSeeds(0), vector=vector, num_processes=1, num_groups=2
    )
    told, policy = [], Elsewhere(weights_for(envs))
    begin, end, act = envs.step_async, envs.step_wait, policy.step
    monkeypatch.setattr(envs, "step_async", lambda part, actions: (told.append(f"begin {part}"), begin(part, actions)))
    monkeypatch.setattr(envs, "step_wait", lambda part: (told.append(f"end {part}"), end(part)))
    monkeypatch.setattr(
        policy, "ask", lambda *seen: (told.append("ask"), lambda: (told.append("answer"), act(*seen))[1])[1]
    )
    with contextlib.closing(envs):
        envs.reset()
        rollout(envs, policy, 2)
    if vector == "serial":  # a part is stepped, and asked for again, while the other's answer is on its way
        part_0, part_1 = (["answer", f"begin {part}", f"end {part}"] for part in range(2))
        assert told == ["ask", "ask", *part_0, "ask", *part_1, "ask", *part_0, *part_1]
    else:  # both parts are on their way, to the policy or in their processes, whenever this one waits
        both = ["ask", "ask", "answer", "begin 0", "answer", "begin 1"]
        assert told == [*both, "end 0", "ask", "end 1", *both[1:], "end 0", "end 1"]


def test_a_batch_tells_the_version_that_acted_its_size_and_its_episodes_by_step():
    envs = opened(lambda: Corridor(length=2), 3)
    batch = rollout(envs, Policy(weights_for(envs, version=12)), 4)
    assert batch.version == 12
    assert batch.num_steps == 12
    assert [finished.step for finished in batch.episodes] == [1, 1, 1, 3, 3, 3]


@pytest.mark.parametrize("recurrent", ["lstm", "gru"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("walk", [Corridor, EndlessCorridor])
def test_recurrent_states_are_those_of_a_step_by_step_walk_that_forgets_at_each_reset(recurrent, shared, walk):
    envs = opened(walk, 3)
    network = {"recurrent": recurrent, "recurrent_size": 8, "shared_value_net": shared, "sequence_length": 4}
    policy = Policy(weights_for(envs, **network))
    states = [policy.initial_states(1) for _ in range(3)]  # one copy at a time, over all rollouts
    for batch in rollouts(envs, policy, 9, 6):  # the last rollout begins with an episode, the others in one
        assert batch.states.shape == (3, 3, policy.spec.state_size)
        cuts = iter(batch.cut_observations[ONLY])
        for t, copy in np.ndindex(9, 3):
            observation = batch.observations[ONLY][t, copy]
            assert batch.starts[t, copy] == (observation[0] == 0)
            if observation[0] == 0:
                states[copy] = policy.initial_states(1)
            if t % 4 == 0:
                np.testing.assert_array_equal(batch.states[t // 4, copy], states[copy][0])
            acted = policy.step({ONLY: observation[None]}, states[copy])
            states[copy] = acted.states
            assert batch.values[t, copy] == acted.values[0]
            if batch.terminated[t, copy]:
                assert batch.next_values[t, copy] == 0.0
                continue
            # What follows is seen with the memory of this episode: a cut's last observation too.
            last = next(cuts) if batch.truncated[t, copy] else np.array([observation[0] + 1.0], np.float32)
            assert last[0] == observation[0] + 1.0
            assert batch.next_values[t, copy] == policy.values({ONLY: last[None]}, states[copy])[0]


@pytest.mark.parametrize("network", [{}, {"shared_value_net": True}, {"recurrent": "lstm"}, {"recurrent": "gru"}])
@pytest.mark.parametrize("walk", [Corridor, EndlessCorridor])
def test_the_critic_that_acted_makes_the_same_of_a_rollout_afterwards_and_another_one_something_else(network, walk):
    envs = opened(walk, 3)
    weights = weights_for(envs, **{"recurrent_size": 8, "sequence_length": 4, **network})
    other = {name: array + 0.1 for name, array in weights.arrays.items()}
    for batch in rollouts(envs, Policy(weights), 9, 2):
        values, next_values = revalued(batch, Policy(weights))
        np.testing.assert_array_equal(values, batch.values)
        np.testing.assert_array_equal(next_values, batch.next_values)
        values, next_values = revalued(batch, Policy(dataclasses.replace(weights, arrays=other)))
        assert (values != batch.values).all()
        assert (next_values != batch.next_values)[~batch.terminated].all()
        again = reevaluated(batch, Policy(weights))
        for name, column in again._asdict().items():
            np.testing.assert_array_equal(column, getattr(batch, name), err_msg=name)  # None where nothing is recurrent
        now = reevaluated(batch, Policy(dataclasses.replace(weights, arrays=other)))
        np.testing.assert_array_equal(now.values, values)
        np.testing.assert_array_equal(now.next_values, next_values)
        assert (now.log_probs != batch.log_probs).any()


class Locks(gymnasium.Env):
    """Three doors, of which those that the mask forbids must not be tried; the mask is in info or observation."""

    def __init__(self, in_observation):
        self.action_space = spaces.MultiDiscrete([3, 2])
        parts = {"place": spaces.Box(-1.0, 1.0, (2,))}
        if in_observation:
            parts["action_mask"] = spaces.MultiBinary(5)
        self.observation_space = spaces.Dict(parts)
        self._in_observation = in_observation

    def _seen(self):
        self._mask = np.concatenate([self.np_random.permutation([1, 1, 0]), self.np_random.permutation([1, 0])])
        observation = {"place": self.np_random.uniform(-1, 1, 2).astype(np.float32)}
        if self._in_observation:
            return {**observation, "action_mask": self._mask.astype(np.int8)}, {}
        return observation, {"action_mask": self._mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen()

    def step(self, action):
        assert self._mask[action[0]]
        assert self._mask[3 + action[1]]
        observation, info = self._seen()
        return observation, float(self.np_random.uniform()), self.np_random.uniform() < 0.1, False, info


@pytest.mark.parametrize("in_observation", [True, False])
def test_masks_are_obeyed_and_stored_with_the_rows_that_they_were_for(in_observation):
    envs = opened(lambda: Locks(in_observation), 3)
    policy = Policy(weights_for(envs))
    assert [column.name for column in policy.spec.observations.columns] == ["place"]
    batch = rollout(envs, policy, 60)
    assert batch.masks.shape == (60, 3, 5)
    assert (batch.masks.sum(axis=2) == 3).all()
    assert np.take_along_axis(batch.masks, batch.actions + np.array([0, 3]), axis=2).all()
    parameters = policy.step(
        {"place": batch.observations["place"].reshape(-1, 2)}, policy.initial_states(180)
    ).parameters
    flat = batch.actions.reshape(-1, 2)
    expected = policy.spec.actions.distribution.log_prob(parameters, flat, batch.masks.reshape(-1, 5))
    np.testing.assert_array_equal(batch.log_probs.reshape(-1), expected)


class CrashesOnce(EndlessCorridor):
    """The first copy that gets to its third step raises."""

    crashed = False

    def step(self, action):
        if self._position == 2 and not CrashesOnce.crashed:
            CrashesOnce.crashed = True
            raise OSError("the simulator is gone")
        return super().step(action)


@pytest.mark.parametrize("recurrent", ["none", "lstm"])
def test_a_crash_gives_a_row_that_is_not_valid_and_what_follows_is_a_new_episode_with_an_empty_memory(recurrent):
    CrashesOnce.crashed = False
    envs = opened(lambda: CrashesOnce(length=5), 2)
    policy = Policy(weights_for(envs, recurrent=recurrent, recurrent_size=8))
    batch = rollout(envs, policy, 6)
    assert batch.observations[ONLY][:, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert batch.valid[:, 0].tolist() == [True, True, False, True, True, True]
    assert batch.starts[:, 0].tolist() == [True, False, False, True, False, False]
    assert batch.valid[:, 1].all()
    # The row before is cut: its successor is what the invalid row saw, and its return goes no further.
    assert batch.next_values[1, 0] == batch.values[2, 0]
    assert batch.values[3, 0] == batch.values[0, 0]
    flags = batch.terminated, batch.truncated, batch.valid
    advantages, _ = gae(batch.rewards, batch.values, batch.next_values, *flags, gamma=GAMMA, lam=0.7)
    expected = batch.rewards[1, 0] + GAMMA * batch.values[2, 0] - batch.values[1, 0]
    assert advantages[1, 0] == pytest.approx(expected, abs=1e-6)
    assert advantages[2, 0] == 0.0
    assert batch.num_steps == 11

"""PPO that learns from simulators: what it takes, what it learns from it, and what there is not."""

import json
from collections import Counter

import numpy as np
import pytest

import shoal
from shoal.algorithms.appo import APPO, APPOConfig
from shoal.algorithms.ppo import PPO, PPOConfig
from shoal.rllib.config import ConfigError
from shoal.rllib.policies.policy import Policy
from shoal.rllib.rollouts.external import ExternalSegment, Taken

LAST = np.array([0.5, -0.5], np.float32)


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(engine="inline", num_cpus=2)
    yield
    shoal.shutdown()


class Corridor:
    """An ``EpisodeSource``: observations are noise, action 1 earns 1; episodes are of 5 steps and truncated."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.policy, self.versions, self.seen = None, [], []

    def publish(self, weights_ref, version):
        self.policy = Policy(shoal.get(weights_ref))
        self.versions.append(version)

    def segment(self, length):
        observations = self.rng.standard_normal((length, 2)).astype(np.float32)
        distribution = self.policy.spec.actions.distribution
        states, steps = [self.policy.initial_states(1)], []
        for row in observations:
            steps.append(self.policy.step({"observation": row[None]}, states[-1]))
            states.append(steps[-1].states)
        parameters = np.concatenate([step.parameters for step in steps])
        actions = distribution.sample(parameters, self.rng.random((length, distribution.num_uniforms)))
        self.seen.append(observations)
        return ExternalSegment(
            first_step=0, observations={"observation": observations}, actions=actions, masks=None,
            log_probs=distribution.log_prob(parameters, actions), rewards=actions[:, 0].astype(np.float32),
            values=self.policy.values(observations, np.concatenate(states[:-1])), states=np.concatenate(states[:-1]),
            versions=np.full(length, self.policy.version), last_observation={"observation": LAST},
            last_value=float(self.policy.values(LAST[None], states[-1])[0]),
        )  # fmt: skip

    def take(self, num_steps, version):
        segments = [self.segment(5) for _ in range(num_steps // 5)]
        segments += [self.segment(num_steps % 5)] if num_steps % 5 else []
        finished = tuple((float(segment.rewards.sum()), len(segment)) for segment in segments)
        return Taken(tuple(segments), finished, Counter(steps=num_steps, duplicates=2), 1, 0)


@pytest.fixture
def made(tmp_path):
    algorithms = []
    told = {
        "observation_space": {"kind": "box", "shape": [2]},
        "action_space": {"kind": "discrete", "nvec": [2]},
    }
    (tmp_path / "spaces.json").write_text(json.dumps(told))

    def make(**settings):
        few = {"num_envs": 4, "rollout_steps": 32, "minibatch_size": 64, "hidden_sizes": (8,), "device": "cpu"}
        config = PPOConfig(env="external", external_spaces=str(tmp_path / "spaces.json"), **few | settings)
        algorithm, source = PPO(config), Corridor()
        algorithms.append(algorithm)
        algorithm.learn_from(source)
        algorithm.broadcast()
        return algorithm, source

    yield make
    for algorithm in algorithms:
        algorithm.close()


def test_it_learns_from_segments_of_any_length_and_counts_them(made):
    algorithm, source = made(total_steps=128 * 12, learning_rate=3e-3)
    rows = [algorithm.step() for _ in range(12)]
    assert rows[-1]["return_mean"] > rows[0]["return_mean"] + 0.5
    assert [row["steps"] for row in rows] == [128 * (i + 1) for i in range(12)]
    assert source.versions == [0, *range(1, 13)]
    assert (rows[1]["external/duplicates"], rows[1]["external/lag_max"], rows[1]["episodes"]) == (4, 0, 52)
    assert algorithm.is_done


@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_another_critic_sees_all_of_them_before_each_epoch_and_a_memory_is_that_of_acting(made, recurrent):
    one_step = {"num_epochs": 1, "minibatch_size": 1000, "recurrent": recurrent, "recurrent_size": 4}
    algorithm, _ = made(**one_step, sequence_length=8)
    metrics = algorithm.step()
    assert metrics["learner/approx_kl"] == pytest.approx(0.0, abs=1e-6)  # nothing differs from how it was acted
    algorithm, _ = made(recurrent=recurrent, recurrent_size=4, recompute_advantages=True, num_epochs=2)
    assert np.isfinite(algorithm.step()["learner/value_loss"])


def test_observations_are_normalised_by_those_that_were_seen_and_by_no_empty_rows(made):
    algorithm, source = made(normalize_observations=True)
    algorithm.step()
    seen = np.concatenate(source.seen).astype(np.float64)
    moments = algorithm.statistics.observations._moments["observation"]
    assert moments.count == len(seen) == 128
    np.testing.assert_allclose(moments.mean, seen.mean(axis=0), rtol=1e-6, atol=1e-9)


def test_a_checkpoint_goes_on_and_says_what_is_lost(made):
    algorithm, _ = made()
    algorithm.step()
    saved = algorithm.checkpoint()
    algorithm.step()
    other, source = made()
    other.restore(saved)
    assert (other.steps, other.iteration, source.versions[-1]) == (128, 1, 1)
    assert other.incidents == ["episodes that simulators were in are lost: their states are no part of a checkpoint"]
    for name, array in saved.tensors["policy"].items():
        np.testing.assert_array_equal(other.weights().arrays[name], array)


def test_there_is_nothing_to_evaluate_in_and_nothing_to_learn_from_without_a_source(made, tmp_path):
    algorithm, _ = made()
    for call in (algorithm.evaluate, algorithm.begin_evaluation):
        with pytest.raises(ConfigError, match="no environment here to evaluate in"):
            call(3)
    algorithm.external._source = None
    with pytest.raises(ConfigError, match="nobody has said where external simulators act"):
        algorithm.step()


def test_others_refuse_simulators_and_those_that_play_here_refuse_a_source():
    with pytest.raises(ConfigError, match="appo does not learn from external simulators"):
        APPO(APPOConfig(env="external"))
    inside = PPO(PPOConfig(num_workers=1, num_envs=1, rollout_steps=4, hidden_sizes=(4,), device="cpu"))
    try:
        with pytest.raises(ConfigError, match="'CartPole-v1' is played in the cluster"):
            inside.learn_from(Corridor())
    finally:
        inside.close()


def test_spaces_that_nobody_knows_are_told():
    with pytest.raises(ConfigError, match="external_spaces: "):
        PPO(PPOConfig(env="external", external_spaces="Nothing-v7"))

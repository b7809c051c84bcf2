"""Playing pairs: what is told is what an evaluation would find, and depends on nothing but numbers."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from shoal.envs import registry
from shoal.envs.vector import EnvFailure
from shoal.rllib import streams
from shoal.rllib.config import ConfigError
from shoal.rllib.evolution.asks import Ask
from shoal.rllib.evolution.candidate_player import CandidatePlayer, Generation, PlaySettings
from shoal.rllib.evolution.noise import PhiloxNoise
from shoal.rllib.evolution.observation_tally import as_moments
from shoal.rllib.evolution.parameter_vector import ParameterVector
from shoal.rllib.policies.normalization import ObservationMoments, ObservationNormalizer
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, PolicySpec, policy_spec
from shoal.rllib.policies.weights import Weights

ENV = "Pendulum-v1+time_limit=30"
SETTINGS = PlaySettings(ENV, seed=5, block_size=3, lanes=4, counts_observations=True)
NORMALIZERS = {"observation": ObservationNormalizer(np.full(3, 0.1, np.float32), np.full(3, 1.5, np.float32))}


def spec_of(env_id: str, hidden_sizes: tuple[int, ...] = (8,)) -> PolicySpec:
    env = registry.make(env_id)
    network = NetworkSettings(hidden_sizes=hidden_sizes, shared_value_net=True)
    return policy_spec(env_id, env.observation_space, env.action_space, network)


def generation_of(spec: PolicySpec, normalizers=NORMALIZERS, step_limit=0) -> Generation:
    centre = np.linspace(-0.3, 0.3, ParameterVector(spec).size, dtype=np.float32)
    return Generation(Ask(2, 8, centre, 0.5), 8, spec, normalizers, step_limit)


@pytest.fixture
def player():
    """Makes players, closes them afterwards."""
    made = []

    def make(spec, **changes):
        settings = replace(SETTINGS, **changes)
        made.append(CandidatePlayer(settings, spec, PhiloxNoise(seed=5, size=ParameterVector(spec).size), 0))
        return made[-1]

    yield make
    for each in made:
        each.close()


def played_literally(spec, flat, seed):
    """One episode by ``Policy`` and gymnasium alone: its return, and what was seen before each step."""
    env, policy = registry.make(ENV), Policy(Weights(0, spec, ParameterVector(spec).arrays(flat), NORMALIZERS))
    observation, _ = env.reset(seed=seed)
    total, seen, is_over = 0.0, [], False
    while not is_over:
        seen.append(observation)
        actions, _ = policy.act({"observation": observation[None]}, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(actions[0])
        total += float(reward)
        is_over = terminated or truncated
    return total, seen


def test_records_and_moments_are_those_of_episodes_played_one_by_one(player):
    spec = spec_of(ENV)
    generation = generation_of(spec)
    report = player(spec).play(generation, 1)
    assert report.records["pair"].tolist() == [3, 4, 5]
    assert (report.records["length"] == 30).all()
    candidates = generation.asked.pairs(PhiloxNoise(seed=5, size=len(generation.asked.centre)), np.array([3, 4, 5]))
    everything = []
    for row, pair in enumerate((3, 4, 5)):
        for sign in (0, 1):
            total, seen = played_literally(spec, candidates[row, sign], streams.pair_seeds(5)(pair, 2))
            assert report.records["fitness"][row, sign] == pytest.approx(total, rel=1e-4)
            everything += seen
    np.testing.assert_array_equal(report.records["fitness"], report.records["score"])
    told, expected = (ObservationMoments({"observation": (3,)}) for _ in range(2))
    told.merge(as_moments(report.moments[0], {"observation": (3,)}))
    expected.update({"observation": np.array(everything)[:, None]})
    for name, array in expected.arrays().items():
        np.testing.assert_allclose(told.arrays()[name], array, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("changes", [{}, {"action_noise": 0.1}, {"episodes": 2}])
def test_a_report_has_the_same_bits_from_any_number_of_lanes_and_after_any_other(player, changes):
    spec = spec_of(ENV)
    generation = generation_of(spec)
    expected = player(spec, lanes=1, **changes).play(generation, 0).to_bytes()
    other = player(spec, lanes=5, **changes)
    other.play(generation, 2)
    other.play_centre(generation, 0)
    assert other.play(generation, 0).to_bytes() == expected


def test_the_last_block_has_the_pairs_that_are_left(player):
    spec = spec_of(ENV)
    assert player(spec).play(generation_of(spec), 2).records["pair"].tolist() == [6, 7]


def test_action_noise_differs_between_signs_and_leaves_the_centre_alone(player):
    spec = spec_of(ENV)
    generation = replace(generation_of(spec), asked=Ask(2, 8, generation_of(spec).asked.centre, 0.0))
    fitness = player(spec, action_noise=0.5).play(generation, 0).records["fitness"]
    assert len(set(fitness.ravel())) == 6
    noisy, plain = (player(spec, action_noise=noise).play_centre(generation, 1).to_bytes() for noise in (0.5, 0.0))
    assert noisy == plain


def test_the_centre_plays_an_episode_of_its_own_number(player):
    spec = spec_of(ENV)
    generation = generation_of(spec)
    record = player(spec).play_centre(generation, 1).records[0]
    total, _ = played_literally(spec, generation.asked.centre, streams.centre_seeds(5)(1, 2))
    assert record["pair"] == -2
    assert record["score"][0] == pytest.approx(total, rel=1e-4)
    assert np.isnan(record["fitness"][1])
    assert record["length"].tolist() == [30, 0]


def test_rewards_are_shifted_for_the_fitness_only_and_episodes_cut_at_the_limit(player):
    spec = spec_of("CartPole-v1")
    generation = generation_of(spec, normalizers={}, step_limit=6)
    settings = {"env_id": "CartPole-v1", "reward_shift": 1.0, "counts_observations": False}
    records = player(spec, **settings).play(generation, 0).records
    assert (records["length"] == 6).all()
    assert (records["score"] == 6.0).all()
    assert (records["fitness"] == 0.0).all()


def test_a_candidates_fitness_is_the_mean_over_its_episodes(player):
    spec = spec_of(ENV)
    generation = generation_of(spec)
    twice = player(spec, episodes=2).play(generation, 0).records
    candidates = generation.asked.pairs(PhiloxNoise(seed=5, size=len(generation.asked.centre)), np.array([1]))
    both = [played_literally(spec, candidates[0, 0], streams.pair_seeds(5)(2 + again, 2))[0] for again in (0, 1)]
    assert twice["fitness"][1, 0] == pytest.approx(np.mean(both), rel=1e-4)
    assert (twice["length"] == 60).all()


class Lying(gymnasium.Env):
    """After three steps its reward or observation is what it should not be."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, what="reward"):
        self._what, self._count = what, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._count += 1
        bad = np.nan if self._count == 3 else 0.0
        if self._what == "raise" and self._count == 3:
            raise RuntimeError("no more")
        seen = np.full(2, bad if self._what == "observation" else 0.0, np.float32)
        return seen, bad if self._what == "reward" else 0.0, False, self._count == 5, {}


class LyingAboutObservations(Lying):
    def __init__(self):
        super().__init__("observation")


class Raising(Lying):
    def __init__(self):
        super().__init__("raise")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("Lying", r"its step 3 gave the reward nan"),
        ("LyingAboutObservations", r"its step 3 gave an observation that is not finite"),
        ("Raising", r"its step raised RuntimeError: no more"),
    ],
)
def test_an_environment_that_fails_is_told_with_the_pair_and_the_seed_that_repeat_it(player, kind, told):
    env_id = f"{__name__}:{kind}"
    spec = spec_of(env_id)
    seed = streams.pair_seeds(5)(3, 2)
    where = rf"^seed 5, generation 2, pair 3, sign \+, episode seed {seed}: worker 0, environment 0: "
    with pytest.raises(EnvFailure, match=where + told):
        player(spec, env_id=env_id, lanes=1, counts_observations=False).play(generation_of(spec, {}), 1)


def test_action_noise_on_choices_is_refused_in_one_line(player):
    spec = spec_of("CartPole-v1")
    with pytest.raises(ConfigError, match=r"^action_noise must be 0 where actions are choices, not 0\.1$"):
        player(spec, env_id="CartPole-v1", action_noise=0.1)


@pytest.mark.parametrize("task", [1, -2])
def test_a_task_that_is_played_episode_by_episode_has_the_same_bits(player, task):
    spec = spec_of(ENV)
    generation, asked = generation_of(spec), player(spec, episodes=2, action_noise=0.1)
    whole = asked.play(generation, task) if task >= 0 else asked.play_centre(generation, -1 - task)
    titles = asked.titles(generation, task)
    assert len(set(titles)) == (12 if task >= 0 else 1)
    other = player(spec, episodes=2, action_noise=0.1, lanes=1)
    outcomes = [other.play_one(generation, task, place) for place in range(len(titles))]
    assert asked.join(generation, task, outcomes).to_bytes() == whole.to_bytes()


def test_an_episode_of_the_centre_counts_whole_however_often_candidates_play(player):
    spec = spec_of(ENV)
    generation = generation_of(spec)
    once, twice = (player(spec, episodes=episodes).play_centre(generation, 0) for episodes in (1, 2))
    assert once.records["score"][0, 0] == twice.records["score"][0, 0] < 0.0

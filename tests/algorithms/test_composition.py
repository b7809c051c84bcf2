"""Everything with everything: each pair of (observations, actions, masks, recurrence, sharing, normalisation, crashes)
occurs in at least one combination, and in each the learner sees exactly what acted.

What a combination must keep: the first minibatches have a probability ratio of 1 and the critic's values, because no
weight has moved yet; every valid row is learned from once and no other; copies act the same whichever worker has them;
and a gradient step is finite and reaches every weight.

Ratios are 1 to 1e-4 and not to the bit: acting adds in blocks of 8 rows in numpy, learning in torch by minibatch, and
float32 sums in another order differ in the last digits, which a log-density of several dimensions adds up.
"""

import copy
import itertools

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.algorithms.ppo import ppo_loss
from shoal.algorithms.ppo_gradients import ppo_gradients
from shoal.envs.seeds import EpisodeSeeds
from shoal.envs.serial import SerialVectorEnv
from shoal.rllib import streams
from shoal.rllib.learning.advantages import gae
from shoal.rllib.learning.minibatches import Sequences, minibatches, samples
from shoal.rllib.learning.numpy_learner import NumpyLearner
from shoal.rllib.learning.torch_learner import TorchLearner
from shoal.rllib.policies.modules import ActorCritic
from shoal.rllib.policies.normalization import ObservationMoments, normalized
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.batch import concatenate
from shoal.rllib.rollouts.rollout import Memory, collect

BOX = spaces.Box(-3.0, 3.0, (3,), np.float64)
IMAGE = spaces.Box(0, 255, (9, 8, 3), np.uint8)
OBSERVATIONS = {
    "box": BOX,
    "discrete": spaces.Discrete(5, start=2),
    "multi_discrete": spaces.MultiDiscrete([2, 4]),
    "multi_binary": spaces.MultiBinary(3),
    "image": IMAGE,
    "tuple": spaces.Tuple((BOX, spaces.Discrete(3))),
    "dict": spaces.Dict({"eye": IMAGE, "body": spaces.Dict({"speed": BOX, "gear": spaces.Discrete(3, start=-1)})}),
}
ACTIONS = {
    "discrete": (spaces.Discrete(4, start=-1), {}),
    "multi_discrete": (spaces.MultiDiscrete([3, 2]), {}),
    "multi_binary": (spaces.MultiBinary(3), {}),
    "box": (spaces.Box(-1.0, 1.0, (2,)), {}),
    "predicted": (spaces.Box(-1.0, 1.0, (2,)), {"log_std": "predicted"}),
    "squashed": (spaces.Box(np.float32([-1, 0]), np.float32([1, 5])), {"squash": True}),
    "nested": (
        spaces.Dict({"move": spaces.Tuple((spaces.Discrete(3, start=1), spaces.Box(0.0, 2.0, (2,)))), "shout": BOX}),
        {"squash": True, "log_std": "predicted"},
    ),
}
FACTORS = {
    "observations": list(OBSERVATIONS),
    "actions": list(ACTIONS),
    "masks": ["none", "info", "observation"],
    "recurrent": ["none", "lstm", "gru"],
    "shared": [False, True],
    "normalized": [False, True],
    "crashes": [False, True],
}


def is_possible(case):
    """A mask needs something to choose, and a Dict to be observed in."""
    has_choices = case.get("actions") not in ("box", "predicted", "squashed")
    in_dict = case.get("observations") in (None, "dict")
    mask = case.get("masks", "none")
    return mask == "none" or (has_choices and (mask == "info" or in_dict))


def all_pairs():
    pairs = set()
    for (first, firsts), (second, seconds) in itertools.combinations(FACTORS.items(), 2):
        for one, other in itertools.product(firsts, seconds):
            if is_possible({first: one, second: other}):
                pairs.add(((first, one), (second, other)))
    return pairs


def pairs_of(case):
    return set(itertools.combinations(case.items(), 2))


def covering_cases():
    """Greedily: each case is the best of some drawn ones that begin with a pair that has not occurred yet."""
    rng = np.random.default_rng(0)
    missing, cases = all_pairs(), []
    while missing:
        seed_pair = dict(min(missing))
        drawn = []
        while len(drawn) < 40:
            case = {name: seed_pair.get(name, choices[rng.integers(len(choices))]) for name, choices in FACTORS.items()}
            if is_possible(case):
                drawn.append(case)
        best = max(drawn, key=lambda case: len(pairs_of(case) & missing))
        missing -= pairs_of(best)
        cases.append(best)
    return cases


CASES = covering_cases()


def test_every_pair_of_features_that_can_meet_does_meet_in_a_case():
    assert set.union(*map(pairs_of, CASES)) >= all_pairs()
    assert any(case["masks"] == "observation" and case["recurrent"] == "lstm" for case in CASES)
    assert len(CASES) < 80


class World(gymnasium.Env):
    """Random observations of any space; refuses actions outside the space or the mask; ends, and crashes, by chance."""

    def __init__(self, case):
        self.action_space = ACTIONS[case["actions"]][0]
        self._inner = copy.deepcopy(OBSERVATIONS[case["observations"]])  # with a generator of its own
        self._masks, self._crashes = case["masks"], case["crashes"]
        self.observation_space = self._inner
        self._sizes = ActionMask.sizes(self.action_space)
        if self._masks == "observation":
            mask = spaces.MultiBinary(sum(self._sizes))
            self.observation_space = spaces.Dict({**self._inner.spaces, "action_mask": mask})

    def _seen(self):
        observation, self._mask = self._inner.sample(), ActionMask.draw(self._sizes, self.np_random)
        if self._masks == "observation":
            return {**observation, "action_mask": self._mask.astype(np.int8)}, {}
        return observation, {"action_mask": self._mask} if self._masks == "info" else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._inner.seed(seed)
        return self._seen()

    def step(self, action):
        assert self.action_space.contains(action), action
        if self._masks != "none":
            ActionMask.check(self.action_space, action, self._mask, self._sizes)
        if self._crashes and self.np_random.uniform() < 0.03:
            raise OSError("the simulator is gone")
        observation, info = self._seen()
        end = self.np_random.uniform()
        return observation, float(self.np_random.normal()), bool(end < 0.15), bool(end > 0.85), info


class ActionMask:
    """Masks of an action space, by its choices in order."""

    @staticmethod
    def sizes(space):
        if isinstance(space, spaces.Dict):
            return [size for part in space.spaces.values() for size in ActionMask.sizes(part)]
        if isinstance(space, spaces.Tuple):
            return [size for part in space.spaces for size in ActionMask.sizes(part)]
        kinds = {spaces.Discrete: "n", spaces.MultiDiscrete: "nvec", spaces.MultiBinary: "n"}
        if type(space) not in kinds:
            return []
        counts = np.atleast_1d(getattr(space, kinds[type(space)])).tolist()
        return [2] * counts[0] if isinstance(space, spaces.MultiBinary) else counts

    @staticmethod
    def draw(sizes, rng):
        parts = []
        for size in sizes:
            part = rng.random(size) < 0.5
            part[rng.integers(size)] = True
            parts.append(part)
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    @staticmethod
    def check(space, action, mask, sizes):
        if isinstance(space, spaces.Dict):
            chosen = [action["move"][0] - 1]
        else:
            chosen = np.atleast_1d(action) - getattr(space, "start", 0)
        starts = np.cumsum([0, *sizes[:-1]])
        assert mask[starts + np.asarray(chosen, np.int64)].all()


def spec_for(case):
    network = NetworkSettings(
        network="impala_cnn" if case["observations"] in ("image", "dict") else "auto",
        hidden_sizes=(12,),
        recurrent=case["recurrent"],
        recurrent_size=6,
        sequence_length=5,
        shared_value_net=case["shared"],
        **ACTIONS[case["actions"]][1],
    )
    envs = opened(case, [0])
    return policy_spec("world", envs.observation_space, envs.action_space, network)


def opened(case, indices):
    envs = SerialVectorEnv(lambda: World(case), indices, EpisodeSeeds(1))
    envs.reset()
    return envs


def rollouts(case, weights, indices):
    """Two in a row, so that what is carried over is looked at too."""
    envs, policy = opened(case, indices), Policy(weights)
    memory = Memory.of_new_episodes(policy, len(indices))
    return [collect(envs, policy, 12, streams.action_streams(0, indices, iteration), memory) for iteration in range(2)]


def learner_for(spec):
    policy = ActorCritic(spec, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.nets.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return TorchLearner(
        policy,
        ppo_loss,
        lambda parameters: torch.optim.Adam(parameters, lr=1e-3, eps=1e-5),
        device=torch.device("cpu"),
        max_grad_norm=0.5,
    )


@pytest.fixture
def _one_thread():
    """Small convolutions on many threads wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_the_learner_sees_what_acted_in_every_combination(case):
    spec = spec_for(case)
    learner = learner_for(spec)
    moments = ObservationMoments(spec.observations.normalizable_shapes)
    if case["normalized"]:
        moments.update(
            {
                name: np.random.default_rng(0).normal(1.0, 2.0, (50, 2, 3))
                for name in spec.observations.normalizable_shapes
            }
        )
    normalizers = moments.normalizers() if case["normalized"] else {}
    weights = Weights(0, spec, learner.weights(0).arrays, normalizers)
    for whole, left, right in zip(*(rollouts(case, weights, part) for part in ([0, 1, 2], [0], [1, 2])), strict=True):
        same(whole, concatenate([left, right]))
        columns = learner.to_device(columns_of(whole, normalizers))
        sequences = None if whole.states is None else Sequences.of(whole, 5)
        rows = 0
        for minibatch in minibatches(columns, 10, np.random.default_rng(0), sequences):
            with torch.no_grad():
                log_probs, entropies, values = learner.policy.evaluate_actions(minibatch)
            rows += len(values)
            ratios = (log_probs - minibatch["log_probs"]).exp()
            torch.testing.assert_close(ratios, torch.ones_like(ratios), rtol=0.0, atol=1e-4)
            torch.testing.assert_close(values, minibatch["values"], rtol=1e-4, atol=1e-4)
            assert entropies.isfinite().all()
        assert rows == whole.num_steps == whole.valid.sum()
        assert whole.valid.all() or case["crashes"]
        assert whole.masks is not None or case["masks"] == "none"

    before = learner.weights(0).arrays
    minibatch = next(minibatches(columns, 64, np.random.default_rng(0), sequences))
    settings = {"clip_range": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}
    metrics = learner.update(minibatch, settings)
    assert all(np.isfinite(metric.item()) for metric in metrics.values())
    moved = learner.weights(1).arrays
    assert [name for name in before if np.array_equal(before[name], moved[name])] == []
    if not (spec.observations.images or spec.is_recurrent):
        steps_like(metrics, moved, before, spec, columns_of(whole, normalizers), settings)


def steps_like(metrics, moved, before, spec, columns, settings):
    """The learner in numpy takes the step that the one in torch has taken."""
    learner = NumpyLearner(spec, before, ppo_gradients, learning_rate=1e-3, epsilon=1e-5, max_grad_norm=0.5)
    minibatch = next(minibatches(learner.to_device(columns), 64, np.random.default_rng(0)))
    mine = learner.update(minibatch, settings)
    assert mine == pytest.approx({name: metric.item() for name, metric in metrics.items()}, rel=1e-4, abs=1e-5)
    for name, array in learner.weights(1).arrays.items():
        np.testing.assert_allclose(array, moved[name], rtol=0.0, atol=2e-5, err_msg=name)


def columns_of(batch, normalizers):
    flags = batch.terminated, batch.truncated, batch.valid
    advantages, returns = gae(batch.rewards, batch.values, batch.next_values, *flags, gamma=0.99, lam=0.95)
    observations = normalized(batch.observations, normalizers)
    return samples(batch, observations, advantages=advantages, returns=returns)


def same(whole, joined):
    """To the last bit, whoever had which copies."""
    for name in ("actions", "log_probs", "rewards", "values", "next_values", "valid", "starts", "masks", "states"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(joined, name), err_msg=name)
    for name, column in whole.observations.items():
        np.testing.assert_array_equal(column, joined.observations[name])
        np.testing.assert_array_equal(whole.cut_observations[name], joined.cut_observations[name])

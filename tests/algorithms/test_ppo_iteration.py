"""One iteration of PPO, number by number: what reaches the learner, in which order, and what is told of it."""

import numpy as np
import pytest

import shoal
from shoal.algorithms.ppo import PPO, PPOConfig
from shoal.rllib.learning.advantages import gae

BOTH_LEARNERS = pytest.mark.parametrize("learner", ["numpy", "torch"])


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(engine="inline", num_cpus=8)
    yield
    shoal.shutdown()


@pytest.fixture
def watched(monkeypatch):
    """Makes an algorithm on a walk that is cut after 5 steps; gives it, and all that its learner is told."""
    made = []

    def make(**settings):
        few = {"num_workers": 1, "num_envs": 3, "rollout_steps": 24, "minibatch_size": 1000, "hidden_sizes": (8,)}
        walk = {"env": "shoal.envs.probes:EndlessCorridor", "device": "cpu"}
        algorithm = PPO(PPOConfig(**{**few, **walk, "num_epochs": 1, **settings}))
        made.append(algorithm)
        learner, told = algorithm.learner, []
        update, set_learning_rate = learner.update, learner.set_learning_rate

        def updated(minibatch, settings):
            told.append(({name: np.asarray(column).copy() for name, column in minibatch.items()}, dict(settings)))
            return update(minibatch, settings)

        monkeypatch.setattr(learner, "update", updated)
        monkeypatch.setattr(learner, "set_learning_rate", lambda rate: (told.append(rate), set_learning_rate(rate)))
        return algorithm, told

    yield make
    for algorithm in made:
        algorithm.close()


def minibatches(told):
    return [each[0] for each in told if isinstance(each, tuple)]


@BOTH_LEARNERS
def test_it_learns_from_the_estimates_of_scaled_rewards_and_tells_how_much_the_critic_explained(watched, learner):
    discounts = {"gamma": 0.7, "gae_lambda": 0.6}
    algorithm, told = watched(learner=learner, normalize_rewards=True, normalize_advantages="off", **discounts)
    batch = algorithm.collect(24)
    algorithm.collect = lambda num_steps: batch
    metrics = algorithm.step()
    sums = [sum(0.7**k for k in range(t % 5 + 1)) for t in range(24)]  # discounted, from nothing after each cut
    scaled = (batch.rewards / np.std(sums)).astype(np.float32)
    flags = batch.terminated, batch.truncated, batch.valid
    advantages, returns = gae(scaled, batch.values, batch.next_values, *flags, gamma=0.7, lam=0.6)
    [rows] = minibatches(told)
    for name, column in (("advantages", advantages), ("returns", returns), ("values", batch.values)):
        np.testing.assert_allclose(np.sort(rows[name]), np.sort(column.ravel()), rtol=1e-5, err_msg=name)
    unexplained = np.var(returns - batch.values) / np.var(returns)
    assert metrics["learner/explained_variance"] == pytest.approx(1.0 - unexplained, rel=1e-4)


@BOTH_LEARNERS
def test_the_loss_is_told_what_the_config_says_and_nothing_of_what_is_off(watched, learner):
    weights = {"clip_range": 0.3, "value_coef": 0.7, "entropy_coef": 0.03}
    clips = {"dual_clip": 3.0, "value_clip_range": 0.4}
    constant = {"clip_range_schedule": "constant", "learner": learner}
    for switched_on in ({}, clips):
        algorithm, told = watched(**weights, **switched_on, **constant)
        algorithm.step()
        assert [each[1] for each in told if isinstance(each, tuple)] == [{**weights, **switched_on}]


@BOTH_LEARNERS
@pytest.mark.parametrize("limit", [0.125, None])
def test_gradients_are_cut_at_the_norm_that_the_config_says(watched, learner, limit):
    algorithm, _ = watched(learner=learner, max_grad_norm=limit)
    assert algorithm.learner._max_grad_norm == (np.inf if limit is None and learner == "numpy" else limit)


def test_each_schedule_is_its_own(watched):
    schedules = {
        "learning_rate": "learning_rate_schedule",
        "clip_range": "clip_range_schedule",
        "entropy_coef": "entropy_schedule",
    }
    for name, falling in schedules.items():
        shapes = {schedule: "linear" if schedule == falling else "constant" for schedule in schedules.values()}
        algorithm, told = watched(total_steps=4 * 72, learning_rate=0.01, entropy_coef=0.02, clip_range=0.2, **shapes)
        rows = [algorithm.step() for _ in range(2)]
        for each, start in (("learning_rate", 0.01), ("clip_range", 0.2), ("entropy_coef", 0.02)):
            expected = [start, 0.75 * start if each == name else start]
            assert [row[f"learner/{each}"] for row in rows] == pytest.approx(expected), (each, name)
        rates = [each for each in told if isinstance(each, float)]
        assert rates == [row["learner/learning_rate"] for row in rows]


def test_the_learning_rate_is_set_before_each_epoch(watched):
    adaptive = {"learning_rate_schedule": "adaptive", "learning_rate": 0.01, "desired_kl": 1e9}
    algorithm, told = watched(num_epochs=3, minibatch_size=40, **adaptive)
    algorithm.step()
    rates = [each if isinstance(each, float) else "step" for each in told]
    assert rates == [0.01, "step", "step", 0.01, "step", "step", 0.01, "step", "step"]  # 0.01 is the most


def test_epochs_end_behind_the_first_whose_mean_divergence_is_more_than_the_target(watched, monkeypatch):
    algorithm, _ = watched(num_epochs=9, target_kl=0.01)
    divergences = iter([0.002, 0.01, 0.0101, 0.5])
    means = algorithm.learner.means
    monkeypatch.setattr(algorithm.learner, "means", lambda steps: {**means(steps), "approx_kl": next(divergences)})
    assert algorithm.step()["learner/epochs"] == 3


def test_rows_are_shuffled_anew_in_each_epoch_iteration_and_run(watched):
    orders = []
    for seed in (0, 0, 1):
        algorithm, told = watched(seed=seed, num_epochs=2, learning_rate=1e-9)
        batch = algorithm.collect(24)
        batch.values[...] = np.arange(72).reshape(24, 3)  # so that each row is known
        algorithm.collect = lambda num_steps, batch=batch: batch
        for _ in range(2):
            algorithm.step()
        orders.append([rows["values"].tolist() for rows in minibatches(told)])
    first, again, other = orders
    assert first == again
    assert len({tuple(order) for order in first + other}) == 8

import math

import numpy as np
import pytest

from shoal.envs import probes
from shoal.envs.copies import LIFE_KEY
from shoal.envs.probes import Corridor
from shoal.envs.vector import Checks, EnvFailure
from shoal.rllib.rollouts import evaluation as evaluating
from shoal.rllib.rollouts.evaluation import Evaluation, play, play_episodes


class Always:
    """Takes the same action everywhere."""

    def __init__(self, action):
        self._action = action

    def act(self, observations, states=None, masks=None, *, deterministic, rng=None):
        assert deterministic
        count = len(observations["observation"])
        return np.full((count, 1), self._action), np.zeros((count, 0))


def test_every_episode_is_played_to_its_end_and_told_in_order():
    evaluation = play("shoal.envs.probes:Corridor", Always(0), episodes=37, seed=0)
    assert evaluation.returns == (5.0,) * 37
    assert evaluation.lengths == (5,) * 37


def test_an_episode_is_the_same_one_whatever_is_played_beside_it():
    together = play("CartPole-v1", Always(1), episodes=20, seed=4)
    apart = [play_episodes("CartPole-v1", Always(1), [number], 4)[0] for number in range(20)]
    assert together.lengths == tuple(episode.length for episode in apart)
    assert len(set(together.lengths)) > 1


class Flaky(Corridor):
    """Its process's first copies crash in their third step."""

    crashes_left = 0

    def step(self, action):
        if self._position == 2 and Flaky.crashes_left:
            Flaky.crashes_left -= 1
            raise RuntimeError("the simulator lost its licence")
        return super().step(action)

    def close(self):
        if self._position == 2:
            raise RuntimeError("nothing is left to close")


def test_episodes_that_crash_are_played_again_from_their_start(monkeypatch, caplog):
    monkeypatch.setattr(probes, "Flaky", Flaky, raising=False)
    monkeypatch.setattr(Flaky, "crashes_left", 2)
    assert play("shoal.envs.probes:Flaky", Always(0), episodes=20, seed=0).returns == (5.0,) * 20
    assert [record.message for record in caplog.records] == [
        "environment 0: its step raised RuntimeError: the simulator lost its licence; its evaluation is played again"
    ] * 2


def test_an_episode_that_crashes_each_time_ends_the_evaluation_with_its_traceback(monkeypatch):
    monkeypatch.setattr(probes, "Flaky", Flaky, raising=False)
    monkeypatch.setattr(Flaky, "crashes_left", 3)
    with pytest.raises(EnvFailure, match=r"(?s)Traceback.*begun 3 times"):
        play("shoal.envs.probes:Flaky", Always(0), episodes=1, seed=0)


class Pursues(Always):
    """Keeps what it saw as its state, and finds each cart where the speed that it had then has taken it."""

    def act(self, observations, states=None, masks=None, *, deterministic, rng=None):
        seen = observations["observation"]
        if states is not None:
            np.testing.assert_allclose(seen[:, 0], states[:, 0] + 0.02 * states[:, 1], atol=1e-6)
        return super().act(observations, deterministic=deterministic)[0], seen.copy()


def test_states_stay_with_their_episodes_when_others_end():
    assert len(set(play("CartPole-v1", Pursues(1), episodes=16, seed=4).lengths)) > 1


def test_a_return_is_of_rewards_before_they_were_clipped():
    assert play("shoal.envs.probes:Corridor+clip_reward=0.5", Always(0), 2, seed=0).returns == (5.0, 5.0)


def test_an_episode_goes_on_over_a_lost_life(monkeypatch):
    class Mortal(Corridor):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            lost = self._position == 2
            return observation, reward, terminated or lost, truncated, {**info, LIFE_KEY: lost}

    monkeypatch.setattr(probes, "Corridor", Mortal)
    assert play("shoal.envs.probes:Corridor", Always(0), 2, seed=0) == Evaluation((5.0, 5.0), (5, 5))


def test_another_seed_starts_other_episodes():
    assert play("CartPole-v1", Always(1), 20, seed=4).lengths != play("CartPole-v1", Always(1), 20, seed=5).lengths


def test_a_failing_environment_is_named_with_the_worker_and_the_episode():
    with pytest.raises(EnvFailure, match="worker 3, environment 6: its step raised ZeroDivisionError"):
        play_episodes("shoal.envs.probes:FailsInStep", Always(0), [6], 0, worker_index=3)


def test_an_episode_that_goes_on_and_on_is_told_once_with_what_to_do(monkeypatch, caplog):
    monkeypatch.setattr(evaluating, "NOTICE_S", 0.0)
    play("shoal.envs.probes:EndlessCorridor+time_limit=600", Always(0), episodes=2, seed=0)
    assert caplog.text.count("has been playing for 0 s: episode 0 is at step 0; if it may go on for ever") == 1
    assert "+time_limit=1000" in caplog.text


def test_the_interval_holds_the_mean_in_19_of_20_experiments():
    rng = np.random.default_rng(0)
    for count in (3, 10, 31, 60):
        evaluations = [Evaluation(tuple(rng.normal(7.0, 2.0, count)), (1,) * count) for _ in range(4_000)]
        held = np.mean([abs(evaluation.mean - 7.0) <= evaluation.ci95 for evaluation in evaluations])
        assert held == pytest.approx(0.95, abs=0.012)


def test_deviation_and_interval_of_known_returns():
    evaluation = Evaluation((1.0, 2.0, 3.0), (1, 1, 1))
    assert evaluation.mean == 2.0
    assert evaluation.std == 1.0
    assert evaluation.ci95 == pytest.approx(4.303 / math.sqrt(3))


def test_a_single_episode_has_no_spread_and_no_interval():
    assert Evaluation((5.0,), (1,)).std == 0.0
    assert Evaluation((5.0,), (1,)).ci95 == math.inf


def test_a_reward_that_is_not_finite_ends_the_evaluation_with_its_index_and_step(monkeypatch):
    class Spoilt(Corridor):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, float("nan") if self._position == 3 else reward, *rest

    monkeypatch.setattr(probes, "Corridor", Spoilt)
    with pytest.raises(EnvFailure, match="environment 0: its step 3 gave the reward nan"):
        play("shoal.envs.probes:Corridor", Always(0), 2, seed=0)
    assert math.isnan(play("shoal.envs.probes:Corridor", Always(0), 2, seed=0, checks=Checks(finite=False)).mean)


@pytest.mark.parametrize("places", [0, 3])
def test_an_observation_outside_its_space_is_refused_if_that_is_asked_for(monkeypatch, places):
    class Strays(Corridor):
        def _observation(self):
            return super()._observation() + 10.0 * (self._position == places)

    monkeypatch.setattr(probes, "Corridor", Strays)
    assert play("shoal.envs.probes:Corridor", Always(0), 2, seed=0).lengths == (5, 5)
    call = f"step {places}" if places else "reset"
    with pytest.raises(EnvFailure, match=f"environment 0: its {call} gave an observation outside its space"):
        play("shoal.envs.probes:Corridor", Always(0), 2, seed=0, checks=Checks(bounds=True))

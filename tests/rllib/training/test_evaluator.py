"""Evaluation beside training, with real actors."""

import os
import signal

import pytest

import shoal
from shoal.algorithms.ppo import PPO
from shoal.envs.vector import Checks, EnvFailure
from shoal.rllib.rollouts.evaluation import play
from shoal.rllib.training.evaluator import MAX_IN_FLIGHT, NICENESS, EvaluationActor


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(num_cpus=4)
    yield
    shoal.shutdown()


def curve(algorithm, iterations):
    rows = [algorithm.step() for _ in range(iterations)]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def test_evaluations_beside_training_are_those_that_the_workers_would_play_and_leave_the_curve_alone(make):
    alone, watched = make(), make()  # together their workers hold all CPUs there are
    expected = curve(alone, 1)
    then = alone.evaluate(3)
    expected += curve(alone, 4)
    seen = curve(watched, 1)
    watched.begin_evaluation(3)
    seen += curve(watched, 4)
    assert str(seen) == str(expected)
    [evaluated] = watched.evaluations(wait=True)
    assert evaluated.steps == 80
    assert evaluated.evaluation == then
    assert watched.evaluations(wait=True) == []


def test_no_more_than_two_wait_and_all_come_out_in_the_order_in_which_they_went_in(make):
    algorithm = make()
    for _ in range(5):
        algorithm.step()
        algorithm.begin_evaluation(2)
        assert algorithm._evaluator._workers.in_flight(0) <= MAX_IN_FLIGHT
    finished = algorithm.evaluations(wait=True)
    assert [evaluated.steps for evaluated in finished] == [80, 160, 240, 320, 400]
    assert finished[-1].evaluation == play("CartPole-v1", PPO.policy_from(algorithm.checkpoint()), 2, seed=0)


def test_an_actor_that_is_killed_is_replaced_and_its_evaluation_made_again(make, monkeypatch, tmp_path):
    marker = tmp_path / "died"

    class DiesOnce(EvaluationActor):
        def evaluate(self, steps, weights, episodes):
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().evaluate(steps, weights, episodes)

    monkeypatch.setattr(shoal.rllib.training.evaluator, "EvaluationActor", DiesOnce)
    algorithm = make()
    algorithm.begin_evaluation(2)
    [evaluated] = algorithm.evaluations(wait=True)
    assert len(evaluated.evaluation.returns) == 2


def test_an_environment_that_fails_in_evaluation_is_raised_with_its_traceback(make):
    algorithm = make(env="shoal.envs.probes:FailsInStep")
    algorithm.begin_evaluation(1)
    with pytest.raises(EnvFailure, match="environment 0: its step raised ZeroDivisionError"):
        algorithm.evaluations(wait=True)


@pytest.mark.parametrize(("setting", "checks"), [("none", Checks(finite=False)), ("bounds", Checks(bounds=True))])
def test_the_actor_refuses_the_numbers_that_training_refuses(make, monkeypatch, setting, checks):
    class Witness(EvaluationActor):
        def evaluate(self, steps, weights, episodes):
            assert self._checks == checks
            return super().evaluate(steps, weights, episodes)

    monkeypatch.setattr(shoal.rllib.training.evaluator, "EvaluationActor", Witness)
    algorithm = make(env_checks=setting)
    algorithm.begin_evaluation(1)
    assert len(algorithm.evaluations(wait=True)) == 1


def test_a_film_comes_back_with_its_evaluation(make):
    algorithm = make(env="shoal.envs.probes:Filmed")
    algorithm.begin_evaluation(2, films=True)
    [evaluated] = algorithm.evaluations(wait=True)
    assert evaluated.evaluation.lengths == (5, 5)
    assert evaluated.film[4:8] == b"ftyp"


def test_the_actor_has_a_lower_priority_than_training_but_never_lowers_the_drivers():
    before = os.nice(0)
    assert EvaluationActor(env_id="CartPole-v1", seed=0, driver_pid=os.getpid())
    assert os.nice(0) == before
    actor = shoal.remote(EvaluationActor).options(num_cpus=0)
    made = actor.remote(env_id="CartPole-v1", seed=0, driver_pid=os.getpid())
    its = shoal.get(made.__ray_call__.remote(lambda actor: os.nice(0)), timeout=60)
    assert its == min(before + NICENESS, 19)
    shoal.kill(made)

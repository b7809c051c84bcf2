"""Inference actors and rollout workers that are killed in the middle of a rollout: the run is the one without them."""

import os
import signal

import numpy as np
import pytest

import shoal
from shoal.rllib.inference.inference import InferenceActor
from shoal.rllib.rollouts.env_runner import EnvRunner

BY_ACTOR = {"inference": "actor"}
#: Columns in which a run with inference actors may differ from one without.
OF_INFERENCE = {"inference/restarts", "inference/asked_again", "inference/batch_rows", "inference/waiting"}


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(num_cpus=8)
    yield
    shoal.shutdown()


def mortal_actor(markers, at_step=20):
    """Inference actors of which one life after the other is killed by ``kill -9`` after some steps, once for each file.

    Args:
      markers: Paths of files that tell that a life has ended.
      at_step: Steps that a life has answered before.
    """

    class Mortal(InferenceActor):
        answered = 0

        async def step(self, *asked):
            self.answered += 1
            left = [marker for marker in markers if not marker.exists()]
            if left and self.answered > at_step:
                left[0].touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return await super().step(*asked)

    return Mortal


def mortal_runner(marker):
    """Rollout workers of which the second is killed when it waits for an answer in its second rollout, once."""

    class Mortal(EnvRunner):
        rollouts = 0

        def collect(self, weights, num_steps, iteration):
            self.rollouts += 1
            if self._worker_index == 1 and self.rollouts == 2 and not marker.exists():
                policy = self._acting(weights)
                policy.ask(self._envs().observations, policy.initial_states(self._envs().num_envs))
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().collect(weights, num_steps, iteration)

    return Mortal


def steps(algorithm, count=4):
    """(rows of metrics, policy) of so many iterations."""
    rows = [algorithm.step() for _ in range(count)]
    return rows, algorithm.checkpoint().tensors["policy"]


def assert_same(mine, its, but=frozenset()):
    (rows, weights), (other_rows, other_weights) = mine, its
    for name, array in weights.items():
        np.testing.assert_array_equal(array, other_weights[name], err_msg=name)
    for row, other in zip(rows, other_rows, strict=True):
        names = {name for name in row | other if not name.startswith("time/")} - OF_INFERENCE - but
        assert not {name for name in names if str(row[name]) != str(other[name])}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_workers": 3, "num_inference_actors": 2, "env_groups": 1},
        {"env_groups": 2, "recurrent": "lstm", "recurrent_size": 6, "sequence_length": 5},
        {"vector": "parallel", "env_processes": 1, "env_groups": 2, "num_workers": 1},
        {"env": "Pendulum-v1", "normalize_observations": True, "shared_value_net": True},
        {"env": "shoal.envs.probes:OneWay"},
    ],
)
def test_actors_give_the_curve_of_workers_that_act_by_themselves_to_the_last_bit(make, settings):
    local = steps(make(**{name: value for name, value in settings.items() if name != "num_inference_actors"}), 3)
    assert_same(steps(make(**settings, **BY_ACTOR), 3), local)


@pytest.mark.parametrize("collect", [{}, {"collect": "dynamic", "max_in_flight": 2, "num_workers": 1, "num_envs": 2}])
def test_an_actor_that_is_killed_again_and_again_changes_nothing_but_what_is_told_of_it(
    make, monkeypatch, tmp_path, collect
):
    local = steps(make(**collect))
    markers = [tmp_path / name for name in ("first", "second")]
    monkeypatch.setattr(shoal.rllib.inference.inference_actors, "InferenceActor", mortal_actor(markers))
    struck = steps(make(**collect, **BY_ACTOR))
    assert all(marker.exists() for marker in markers)
    assert_same(struck, local, {"collection/straggler_ratio"})
    assert struck[0][-1]["inference/restarts"] == 2
    assert struck[0][-1]["inference/asked_again"] >= 2


def test_an_actor_that_dies_each_time_it_is_asked_ends_the_run_by_name(make, monkeypatch, tmp_path):
    markers = [tmp_path / str(number) for number in range(20)]
    monkeypatch.setattr(shoal.rllib.inference.inference_actors, "InferenceActor", mortal_actor(markers, at_step=0))
    algorithm = make(**BY_ACTOR)
    with pytest.raises(shoal.rllib.worker_set.WorkerLostError, match=r"inference actor 0 keeps dying.*SIGKILL"):
        algorithm.step()


def test_a_worker_that_is_killed_while_it_waits_for_an_answer_holds_up_nobody_and_changes_nothing(
    make, monkeypatch, tmp_path
):
    local = steps(make())
    monkeypatch.setattr(shoal.rllib.algorithm, "EnvRunner", mortal_runner(tmp_path / "marker"))
    struck = steps(make(**BY_ACTOR))
    assert (tmp_path / "marker").exists()
    assert_same(struck, local, {"workers_replaced"})
    assert struck[0][-1]["workers_replaced"] == 1
    assert struck[0][-1]["inference/restarts"] == 0

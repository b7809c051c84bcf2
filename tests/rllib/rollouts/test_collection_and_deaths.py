"""Workers that die while several of their rollouts are on their way."""

import os
import signal

import numpy as np
import pytest

import shoal
from shoal.core import api
from shoal.rllib.rollouts.env_runner import EnvRunner

DYNAMIC = {"collect": "dynamic", "max_in_flight": 2}


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(num_cpus=8)
    yield
    shoal.shutdown()


def killing(*strikes):
    """Workers that are killed by ``kill -9`` in the middle of some rollouts, once each.

    Args:
      strikes: (worker, how many rollouts its process has finished before, path of a file that tells that it has been).
    """

    class Mortal(EnvRunner):
        finished = 0

        def collect(self, weights, num_steps, iteration):
            for worker, number, marker in strikes:
                if (worker, number) == (self._worker_index, self.finished) and not marker.exists():
                    super().collect(weights, num_steps // 2, iteration)
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            self.finished += 1
            return super().collect(weights, num_steps, iteration)

    return Mortal


@pytest.mark.parametrize("settings", [{}, {"recurrent": "gru", "recurrent_size": 8, "sequence_length": 5}])
def test_a_run_whose_worker_is_killed_with_two_requests_in_flight_is_the_one_whose_worker_is_not(
    make, monkeypatch, tmp_path, settings
):
    alone = {**DYNAMIC, "num_workers": 1, "num_envs": 2, **settings}
    left_alone = make(**alone)
    markers = [tmp_path / name for name in ("first", "second", "third")]
    strikes = [(0, number, marker) for number, marker in zip((0, 3, 1), markers, strict=True)]
    monkeypatch.setattr(shoal.rllib.algorithm, "EnvRunner", killing(*strikes))
    struck = make(**alone)
    for _ in range(8):
        mine, its = left_alone.step(), struck.step()
        differing = {name for name in mine if str(mine[name]) != str(its[name]) and not name.startswith("time/")}
        assert differing <= {"workers_replaced", "collection/made_again", "collection/straggler_ratio"}
    assert all(marker.exists() for marker in markers)
    assert struck.workers.replacements == 3
    assert its["collection/made_again"] == 6
    expected = left_alone.checkpoint().tensors
    for group, arrays in struck.checkpoint().tensors.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[group][name], err_msg=f"{group} {name}")


def test_a_worker_whose_environments_cannot_tell_their_state_starts_new_episodes_and_says_so(make):
    algorithm = make(**DYNAMIC, vector="gymnasium", normalize_rewards=True)
    algorithm.step()
    algorithm.collection.settle()
    api.kill(algorithm.workers._actors[1])
    for _ in range(3):
        row = algorithm.step()
    assert row["workers_replaced"] == 1
    assert algorithm.incidents == ["the environments of rollout worker 1 start new episodes: it died"]
    assert row["collection/dropped"] == 0

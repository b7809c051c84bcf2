"""Algorithm, WorkerSet and EnvRunner together, with real actors; PPO stands for any algorithm."""

import math
import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

import shoal
from shoal.algorithms.ppo import PPO, PPOConfig
from shoal.envs.columns import ONLY
from shoal.envs.vector import EnvFailure
from shoal.rllib.config import ConfigError
from shoal.rllib.rollouts.env_runner import EnvRunner
from shoal.rllib.rollouts.evaluation import play
from shoal.rllib.training import checkpoints
from shoal.rllib.training.checkpoints import CheckpointError
from shoal.rllib.worker_set import WorkerLostError


@pytest.fixture(scope="module", autouse=True)
def runtime():
    shoal.init(num_cpus=8)
    yield
    shoal.shutdown()


@pytest.fixture(scope="module")
def trained(runtime):
    """An algorithm with everything that one can have to remember, after a step, and its checkpoint."""
    settings = {"env": "Pendulum-v1", "normalize_observations": True, "normalize_rewards": True}
    few = {"num_workers": 1, "num_envs": 2, "rollout_steps": 16, "num_epochs": 1, "hidden_sizes": (8,)}
    algorithm = PPO(PPOConfig(device="cpu", **few, **settings))
    algorithm.step()
    yield algorithm, algorithm.checkpoint()
    algorithm.close()


def arrays_of(algorithm):
    return algorithm.checkpoint().tensors


def same(mine, its):
    assert mine.keys() == its.keys()
    for group, arrays in mine.items():
        assert arrays.keys() == its[group].keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, its[group][name], err_msg=f"{group} {name}")


def without_times(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


@pytest.mark.parametrize(
    "network",
    [
        {"learner": "numpy"},
        {"learner": "torch"},
        {"recurrent": "gru", "recurrent_size": 8, "sequence_length": 6},
        {"env": "shoal.envs.probes:Lamp", "network": "impala_cnn"},
    ],
)
def test_the_number_of_workers_changes_nothing_to_the_last_bit(make, network):
    one, three = make(num_workers=1, **network), make(num_workers=3, **network)
    for _ in range(4):
        assert without_times(one.step()) == pytest.approx(without_times(three.step()), abs=0.0, nan_ok=True)
    same(arrays_of(one), arrays_of(three))
    assert one.evaluate(7) == three.evaluate(7)


def test_one_two_and_four_workers_learn_the_same_to_the_last_bit(make):
    runs = [make(num_workers=count, num_envs=8, rollout_steps=32) for count in (1, 2, 4)]
    first, *others = [[without_times(run.step()) for _ in range(4)] for run in runs]
    assert all(str(other) == str(first) for other in others)
    for run in runs[1:]:
        same(arrays_of(run), arrays_of(runs[0]))


def test_a_run_that_normalises_depends_on_no_number_of_workers_and_is_restored_with_its_statistics(make):
    settings = {"env": "Pendulum-v1", "normalize_observations": True, "normalize_rewards": True}
    one, two, heir = make(num_workers=1, **settings), make(num_workers=2, **settings), make(**settings)
    for _ in range(3):
        one.step()
        two.step()
    same(arrays_of(one), arrays_of(two))
    assert arrays_of(one)["normalization_observations"]["observation/count"] == one.steps
    assert one.evaluate(2) == play("Pendulum-v1", PPO.policy_from(one.checkpoint()), 2, seed=0)
    heir.restore(one.checkpoint())
    same(arrays_of(one), arrays_of(heir))
    assert heir.evaluate(2) == one.evaluate(2)


def test_a_run_cannot_go_on_with_other_normalisation(make):
    plain, normalising = make(), make(normalize_observations=True)
    with pytest.raises(CheckpointError, match="the checkpoint normalises nothing, this run observations"):
        normalising.restore(plain.checkpoint())


def test_the_seed_changes_everything(make):
    first, same_seed, other = make(seed=1), make(seed=1), make(seed=2)
    for algorithm in (first, same_seed, other):
        algorithm.step()
    same(arrays_of(first), arrays_of(same_seed))
    assert not np.array_equal(
        arrays_of(first)["policy"]["value.hidden.0.weight"], arrays_of(other)["policy"]["value.hidden.0.weight"]
    )


def test_an_iteration_reports_what_the_display_and_the_logs_need(make):
    algorithm = make()
    metrics = algorithm.step()
    assert metrics["steps"] == algorithm.steps == 5 * 16
    assert metrics["iteration"] == algorithm.iteration == 1
    assert metrics["workers_replaced"] == 0
    assert metrics["time/collect_s"] > 0.0
    assert metrics["time/learn_s"] > 0.0
    assert math.isfinite(metrics["learner/policy_loss"])
    assert all(isinstance(value, int | float) for value in metrics.values())
    for _ in range(5):
        metrics = algorithm.step()
    assert metrics["episodes"] > 5
    assert metrics["return_mean"] == metrics["episode_length_mean"] > 8


def test_there_is_no_mean_return_before_the_first_episode_has_ended(make):
    metrics = make(rollout_steps=2).step()
    assert metrics["episodes"] == 0
    assert math.isnan(metrics["return_mean"])


def test_evaluation_in_workers_is_what_the_frozen_policy_plays_anywhere(make):
    algorithm = make(seed=3)
    algorithm.step()
    steps = algorithm.steps
    evaluation = algorithm.evaluate(5)
    assert evaluation == play("CartPole-v1", PPO.policy_from(algorithm.checkpoint()), 5, seed=3)
    assert algorithm.evaluate(1).returns == evaluation.returns[:1]
    assert algorithm.steps == steps


def test_a_restored_run_has_everything_that_was_saved_and_goes_on_the_same_way_each_time(make, tmp_path):
    first = make()
    for _ in range(3):
        first.step()
    place = checkpoints.save(first.checkpoint(), tmp_path / "step")
    heirs = [make(), make(num_workers=1)]
    heirs[1].step()
    for heir in heirs:
        heir.restore(checkpoints.load(place))
        assert (heir.steps, heir.iteration, heir.episodes) == (first.steps, first.iteration, first.episodes)
        same(arrays_of(heir), arrays_of(first))
    assert heirs[0].evaluate(3) == first.evaluate(3)
    for _ in range(2):
        for heir in heirs:
            heir.step()
    same(arrays_of(heirs[0]), arrays_of(heirs[1]))


@pytest.mark.parametrize(
    ("settings", "workers_then"),
    [
        ({"num_workers": 1, "learner": "torch"}, 1),
        ({"num_workers": 2, "learner": "numpy"}, 2),
        ({"num_workers": 2}, 1),
        ({"num_workers": 1, "learning_rate_schedule": "adaptive"}, 2),
        ({"num_workers": 2, "recurrent": "lstm", "recurrent_size": 8, "sequence_length": 7}, 1),
        ({"env": "Pendulum-v1", "normalize_observations": True, "normalize_rewards": True, "num_workers": 2}, 2),
        ({"env": "Pendulum-v1", "normalize_observations": True, "normalize_rewards": True, "num_workers": 1}, 2),
        ({"vector": "parallel", "env_processes": 2, "num_workers": 1}, 2),
        ({"vector": "parallel", "env_processes": 1, "env_groups": 2, "num_envs": 4, "num_workers": 1}, 2),
        ({"vector": "batched", "recompute_advantages": True, "num_workers": 2}, 1),
        ({"recurrent": "gru", "recurrent_size": 8, "shared_value_net": True, "num_workers": 1}, 2),
        ({"env": "Hopper-v5", "normalize_observations": True, "normalize_rewards": True, "num_workers": 2}, 2),
    ],
)
def test_ten_iterations_and_ten_more_after_a_restart_are_twenty_bit_for_bit(make, tmp_path, settings, workers_then):
    settings = {"num_envs": 3, "rollout_steps": 23, "total_steps": 20 * 3 * 23, **settings}
    whole, first, heir = make(**settings), make(**settings), make(**{**settings, "num_workers": workers_then})
    rows = [without_times(whole.step()) for _ in range(20)]
    for _ in range(10):
        first.step()
    place = checkpoints.save(first.checkpoint(), tmp_path / "step")
    heir.restore(checkpoints.load(place))
    assert str([without_times(heir.step()) for _ in range(10)]) == str(rows[10:])
    same(arrays_of(heir), arrays_of(whole))
    assert heir.incidents == []


def test_a_run_whose_workers_are_killed_is_the_one_whose_workers_are_not(make):
    left_alone, struck = make(), make()
    for iteration in range(6):
        if iteration in (0, 3, 5):
            shoal.kill(struck.workers._actors[iteration % 2])
        mine, its = without_times(left_alone.step()), without_times(struck.step())
        assert mine.pop("workers_replaced") == 0
        assert its.pop("workers_replaced") == (iteration >= 0) + (iteration >= 3) + (iteration >= 5)
        assert str(mine) == str(its)
    same(arrays_of(left_alone), arrays_of(struck))


def test_a_run_that_goes_on_with_other_environments_starts_new_episodes_and_says_so(make):
    first, more = make(normalize_rewards=True), make(num_envs=7, normalize_rewards=True)
    first.step()
    more.restore(first.checkpoint())
    assert more.incidents == ["all 7 environments start new episodes: there were others"]
    assert more.step()["steps"] == first.steps + 7 * 16


def test_a_killed_worker_whose_environments_cannot_tell_their_state_starts_new_episodes_and_says_so(make):
    algorithm = make(vector="gymnasium", normalize_rewards=True)
    algorithm.step()
    before = algorithm.statistics.rewards.arrays()["returns"]
    assert before.all()
    starts = make(vector="gymnasium").collect(1).observations[ONLY][0]
    shoal.kill(algorithm.workers._actors[1])
    anew = algorithm.collect(16).observations[ONLY][0]
    assert (anew[3:] != starts[3:]).all()
    assert algorithm.incidents == ["the environments of rollout worker 1 start new episodes: it died"]
    after = algorithm.statistics.rewards.arrays()["returns"]
    assert after.tolist() == [*before[:3], 0.0, 0.0]


def test_a_checkpoint_that_does_not_tell_where_its_environments_stood_goes_on_with_new_episodes(make):
    first, heirs = make(), [make(), make(num_workers=1)]
    starts = make().collect(1).observations[ONLY][0]
    first.step()
    for heir in heirs:
        heir.restore(without(first.checkpoint(), "tensors", "environments"))
        assert "new episodes: the checkpoint does not tell where they stood" in heir.incidents[0]
        assert (heir.collect(16).observations[ONLY][0] != starts).all()  # none that the run has had
        heir.step()
    same(arrays_of(heirs[0]), arrays_of(heirs[1]))
    shoal.kill(heirs[0].workers._actors[0])
    for heir in heirs:
        heir.step()
    same(arrays_of(heirs[0]), arrays_of(heirs[1]))


def test_environments_that_crash_are_counted_and_told(make, monkeypatch):
    class OneCrash(EnvRunner):
        def collect(self, weights, num_steps, iteration):
            collected = super().collect(weights, num_steps, iteration)
            return replace(collected, replaced=1, incidents=(f"environment {self._worker_index}: it was replaced",))

    monkeypatch.setattr(shoal.rllib.algorithm, "EnvRunner", OneCrash)
    algorithm = make()
    assert algorithm.step()["environments_replaced"] == 2
    assert algorithm.step()["environments_replaced"] == 4
    assert algorithm.incidents == ["environment 0: it was replaced", "environment 1: it was replaced"] * 2


def test_a_checkpoint_of_another_network_or_algorithm_is_refused(make):
    small, large = make(hidden_sizes=(8,)), make(hidden_sizes=(16,))
    with pytest.raises(CheckpointError, match=r"policy has hidden_sizes \(8,\), this run's \(16,\)$"):
        large.restore(small.checkpoint())
    other = checkpoints.Checkpoint(algorithm="es", config={}, counters={}, tensors={})
    with pytest.raises(CheckpointError, match="'es' cannot go on as 'ppo'"):
        large.restore(other)
    with pytest.raises(CheckpointError, match="holds no policy"):
        PPO.policy_from(other)


def without(checkpoint, part, name, key=None):
    """The checkpoint less one entry: of `counters` or `extra`, or a whole group of tensors, or one array of it."""
    left = dict(getattr(checkpoint, part))
    gone = left.pop(name)
    if key is not None:
        left[name] = {other: array for other, array in gone.items() if other != key}
    return replace(checkpoint, **{part: left})


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (("counters", "steps"), "counter 'steps'"),
        (("counters", "iteration"), "counter 'iteration'"),
        (("counters", "episodes"), "counter 'episodes'"),
        (("extra", "policy_spec"), "policy_spec"),
        (("tensors", "policy"), "tensors 'policy'"),
        (("tensors", "policy", "value.head.bias"), "'policy' lack value.head.bias"),
        (("tensors", "optimizer"), "tensors 'optimizer'"),
        (("tensors", "optimizer", "policy.hidden.0.weight/exp_avg"), "'optimizer' lack policy.hidden.0.weight/exp_avg"),
        (("tensors", "episodes"), "tensors 'episodes'"),
        (("tensors", "episodes", "lengths"), "'episodes' lack lengths"),
        (("tensors", "normalization_observations", "observation/mean"), "lack observation/mean"),
        (("tensors", "normalization_rewards", "count"), "'normalization_rewards' lack count"),
        (("tensors", "normalization_rewards", "returns"), "'normalization_rewards' lack returns"),
        (("tensors", "environments", "length"), "'environments' are no state"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_checkpoint_that_lacks_something_is_refused_by_its_name_and_changes_nothing(trained, gone, told):
    algorithm, checkpoint = trained
    with pytest.raises(CheckpointError, match=told) as caught:
        algorithm.restore(without(checkpoint, *gone))
    assert "\n" not in str(caught.value)
    same(arrays_of(algorithm), checkpoint.tensors)


@pytest.mark.parametrize("group", ["policy", "optimizer", "episodes", "normalization_observations"])
def test_an_array_of_another_shape_is_refused_by_its_name_and_changes_nothing(trained, group):
    algorithm, checkpoint = trained
    name = max(checkpoint.tensors[group])
    spoilt = {**checkpoint.tensors[group], name: np.zeros((2, 3, 4), np.float32)}
    with pytest.raises(CheckpointError, match=rf"'{group}': {name} has shape \(2, 3, 4\), not "):
        algorithm.restore(replace(checkpoint, tensors={**checkpoint.tensors, group: spoilt}))
    same(arrays_of(algorithm), checkpoint.tensors)


def test_an_optimiser_that_forgot_everything_is_refused_except_before_the_first_step(make, trained):
    algorithm, checkpoint = trained
    with pytest.raises(CheckpointError, match="'optimizer' lack"):
        algorithm.restore(replace(checkpoint, tensors={**checkpoint.tensors, "optimizer": {}}))
    first, heir = make(), make()
    heir.step()
    heir.restore(first.checkpoint())
    same(arrays_of(heir), arrays_of(first))


@pytest.mark.parametrize(
    "gone", [("policy", "policy.hidden.0.weight"), ("policy",), ("normalization_observations", "observation/squares")]
)
def test_a_policy_that_lacks_something_is_refused_by_its_name_where_it_would_act(trained, gone):
    with pytest.raises(CheckpointError, match=gone[-1]):
        PPO.policy_from(without(trained[1], "tensors", *gone))


def test_a_killed_worker_is_replaced_and_no_sample_is_lost(make):
    algorithm = make()
    algorithm.step()
    shoal.kill(algorithm.workers._actors[1])
    metrics = algorithm.step()
    assert metrics["workers_replaced"] == 1
    assert metrics["steps"] == 2 * 5 * 16


def test_a_worker_killed_in_the_middle_of_a_rollout_is_replaced_and_the_rollout_made_again(make, monkeypatch, tmp_path):
    marker = tmp_path / "died"

    class DiesOnce(EnvRunner):
        def collect(self, weights, num_steps, iteration):
            if self._worker_index == 1 and not marker.exists():
                super().collect(weights, num_steps // 2, iteration)
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().collect(weights, num_steps, iteration)

    monkeypatch.setattr(shoal.rllib.algorithm, "EnvRunner", DiesOnce)
    algorithm = make()
    batch = algorithm.collect(16)
    assert batch.rewards.shape == (16, 5)
    assert algorithm.steps == 16 * 5
    assert algorithm.workers.replacements == 1


def test_an_environment_that_keeps_killing_its_process_is_an_error_that_tells_how_it_died(make):
    algorithm = make(env="shoal.envs.probes:KillsItsProcess", num_workers=1)
    told = (
        r"(?s)^rollout worker 0 \(it plays shoal.envs.probes:KillsItsProcess; with --vector parallel, an environment "
        r"that ends its process is replaced\) died 3 times in a row without finishing 'collect': .*SIGKILL"
    )
    with pytest.raises(WorkerLostError, match=told):
        algorithm.step()


def test_a_rollout_larger_than_a_message_comes_through_shared_memory_and_is_learned_from(make):
    algorithm = make(rollout_steps=4_000, num_epochs=1, minibatch_size=20_000)
    weights = algorithm.learner.weights(0)
    algorithm.workers.submit(0, "collect", weights, 4_000, 0)
    batch = next(algorithm.workers.completed()).value.batch
    assert batch.observations[ONLY].nbytes > 100_000
    assert not batch.observations[ONLY].flags.writeable
    assert algorithm.step()["steps"] == 20_000


def test_an_unknown_environment_is_refused_before_any_worker_is_started(make):
    with pytest.raises(ConfigError, match="CartPole-v1") as caught:
        make(env="CartPol-v1")
    assert "\n" not in str(caught.value)


def test_an_environment_that_does_not_fit_the_network_is_refused_in_one_line(make):
    with pytest.raises(ConfigError, match="network: nature_cnn needs images") as caught:
        make(network="nature_cnn")
    assert "\n" not in str(caught.value)


def test_an_environment_that_cannot_be_made_shows_its_own_traceback_worker_and_index(make):
    with pytest.raises(EnvFailure, match="worker 0, environment 0: its constructor raised OSError") as caught:
        make(env="shoal.envs.probes:FailsToStart", num_workers=1)
    assert 'raise OSError("the level file is missing")' in str(caught.value)


def test_an_environment_that_fails_in_step_shows_its_own_traceback_worker_and_index(make):
    algorithm = make(env="shoal.envs.probes:FailsInStep", num_workers=1)
    with pytest.raises(EnvFailure, match="worker 0, environment 0: its step raised ZeroDivisionError") as caught:
        algorithm.step()
    assert "the physics blew up" in str(caught.value)


def test_a_device_that_is_not_there_is_refused_in_one_line(make):
    with pytest.raises(ConfigError, match="device 'cuda:99' cannot be used"):
        make(device="cuda:99")


def test_workers_import_no_torch(make):
    class Witness(EnvRunner):
        def loaded(self):
            return sorted(sys.modules)

    algorithm = make()
    witness = shoal.remote(Witness).remote(env_id="CartPole-v1", worker_index=0, env_indices=[0, 1], seed=0)
    shoal.get(witness.collect.remote(algorithm.learner.weights(0), 5, 0), timeout=60)
    shoal.get(witness.evaluate.remote(algorithm.learner.weights(0), [0]), timeout=60)
    loaded = shoal.get(witness.loaded.remote(), timeout=60)
    assert "gymnasium" in loaded
    assert "torch" not in loaded

"""Rollouts as they come, with real actors on every engine: checkpoints, deaths, evaluation in between.

PPO stands for any algorithm.
"""

import numpy as np
import pytest

import shoal
from shoal.core import api
from shoal.envs.columns import ONLY
from shoal.rllib.config import ConfigError
from shoal.rllib.training import checkpoints


@pytest.fixture(scope="module", params=["native", "inline", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request):
    shoal.init(
        "local", num_cpus=8, engine=request.param, include_dashboard=False, object_store_memory=256 * 1024 * 1024
    )
    yield request.param
    shoal.shutdown()


#: Steps of an episode of the probe Corridor, whose observation is the number of steps so far.
LENGTH = 5

DYNAMIC = {"collect": "dynamic", "max_in_flight": 2}


def play(algorithm, rows):
    """A batch's segments, and the policy goes on to its next version without learning anything."""
    segments = algorithm.collection.take(rows)
    algorithm.iteration += 1
    algorithm.broadcast()
    return segments


def steps_taken(algorithm, segments):
    """The steps that each copy of the run took, one segment behind the other: positions in corridors."""
    taken = {}
    for segment in segments:
        for column, copy in enumerate(algorithm.fleet.copies_of([segment])):
            taken.setdefault(int(copy), []).extend(segment.batch.observations[ONLY][:, column, 0].tolist())
    return taken


@pytest.mark.usefixtures("engine")
def test_training_takes_rollouts_as_they_come_and_drops_none(make):
    algorithm = make(**DYNAMIC, normalize_observations=True, normalize_rewards=True, env="Pendulum-v1")
    for iteration in range(4):
        row = algorithm.step()
        assert row["collection/dropped"] == row["collection/made_again"] == 0
        assert row["collection/lag_max"] <= min(2, iteration)
        assert row["collection/in_flight"] + row["collection/held"] >= 2
    assert row["steps"] >= 4 * 5 * 16
    assert algorithm.checkpoint().tensors["normalization_observations"]["observation/count"] == row["steps"]
    assert len(algorithm.evaluate(3).returns) == 3
    assert algorithm.step()["collection/dropped"] == 0


@pytest.mark.usefixtures("engine")
def test_what_is_there_is_taken_without_waiting_where_nothing_bounds_the_lag(make):
    algorithm = make()
    algorithm.collection = algorithm.dynamic_collection(8, max_in_flight=2, max_lag=None)
    algorithm.broadcast()
    segments = algorithm.collection.take(1)
    while len(segments) < 6:
        segments += algorithm.collection.ready()
    assert {segment.lag for segment in segments} == {0}
    assert algorithm.steps == sum(segment.batch.num_steps for segment in segments)
    assert algorithm.collection.metrics()["in_flight"] == 4


@pytest.mark.usefixtures("engine")
def test_with_a_bound_on_the_lag_segments_are_not_taken_without_waiting(make):
    algorithm = make(**DYNAMIC)
    with pytest.raises(RuntimeError, match=r"may lag by 2 at most, and that may need waiting: use take\(\)"):
        algorithm.collection.ready()


@pytest.mark.usefixtures("engine")
def test_nothing_can_be_taken_before_there_are_weights(make):
    algorithm = make()
    with pytest.raises(RuntimeError, match=r"no weights have been published yet: call publish\(\) first"):
        algorithm.dynamic_collection(8, max_in_flight=1, max_lag=None).take(1)


@pytest.mark.usefixtures("engine")
def test_no_step_of_any_copy_is_missing_or_twice_although_workers_are_killed(make):
    algorithm = make(**DYNAMIC, env="shoal.envs.probes:Corridor", rollout_steps=7, num_workers=3)
    segments = []
    for turn in range(9):
        segments += play(algorithm, 5 * 7)
        if turn % 2:
            api.kill(algorithm.workers._actors[turn % 3])
    metrics = algorithm.collection.metrics()
    assert algorithm.workers.replacements >= 3
    assert metrics["made_again"] >= algorithm.workers.replacements
    assert metrics["dropped"] == 0
    taken = steps_taken(algorithm, segments)
    assert sorted(taken) == [0, 1, 2, 3, 4]
    for positions in taken.values():
        assert positions == [step % LENGTH for step in range(len(positions))]
    assert algorithm.steps == sum(map(len, taken.values()))
    assert algorithm.incidents == []


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("settings", [{}, {"num_workers": 1}, {"collect": "synchronous", "max_in_flight": 1}])
def test_a_run_goes_on_from_a_checkpoint_where_its_last_taken_segments_ended(make, monkeypatch, tmp_path, settings):
    corridor = {**DYNAMIC, "env": "shoal.envs.probes:Corridor", "rollout_steps": 7, "normalize_rewards": True}
    first, heir = make(**corridor), make(**{**corridor, **settings})
    before, take = [], first.collection.take
    monkeypatch.setattr(first.collection, "take", lambda rows: before.append(take(rows)) or before[-1])
    for _ in range(4):
        first.step()
    stood = steps_taken(first, [segment for batch in before for segment in batch])
    place = checkpoints.save(first.checkpoint(), tmp_path / "step")
    first.step()  # a checkpoint does not disturb the run that it is of
    heir.step()
    heir.restore(checkpoints.load(place))
    assert heir.steps == sum(map(len, stood.values()))
    assert heir.iteration == 4
    assert heir.checkpoint().counters["rollouts"] >= sum(map(len, before[:4]))
    if heir.collection is None:
        batch = heir.collect(7)
        after = {copy: batch.observations[ONLY][:, copy, 0].tolist() for copy in range(5)}
    else:
        after = steps_taken(heir, [segment for _ in range(4) for segment in play(heir, 5 * 7)])
    for copy, positions in after.items():
        whole = stood[copy] + positions
        assert whole == [step % LENGTH for step in range(len(whole))]
    assert heir.incidents == []
    assert heir.step()["steps"] == heir.steps


@pytest.mark.usefixtures("engine")
def test_a_checkpoint_knows_where_the_environments_of_a_worker_stand_that_has_sent_nothing_yet(make):
    algorithm = make(**DYNAMIC)
    assert algorithm.checkpoint().tensors["environments"]["length"].tolist() == [0] * 5
    slow_is_untaken = algorithm.collection.take(1)
    assert len(slow_is_untaken) == 1
    assert "environments" in algorithm.checkpoint().tensors


@pytest.mark.usefixtures("engine")
def test_segments_of_several_versions_and_of_one_copy_twice_make_one_batch(make):
    algorithm = make(**DYNAMIC, num_workers=1)
    segments = play(algorithm, 2 * 5 * 16)
    segments += play(algorithm, 5 * 16)
    assert [segment.lag for segment in segments] == [0, 0, 1]
    assert algorithm.fleet.copies_of(segments).tolist() == [0, 1, 2, 3, 4] * 3
    algorithm.collection.settle()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_in_flight": 0}, "max_in_flight must be at least 1"),
        ({"max_lag": -1}, "max_lag must be at least 0"),
        ({"max_in_flight": 2}, "max_in_flight must be 1 where collect is synchronous"),
        ({"max_lag": 1}, "max_lag must be 2 where collect is synchronous"),
    ],
)
def test_settings_out_of_range_are_refused(make, wrong, told):
    with pytest.raises(ConfigError, match=told):
        make(**wrong)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "settings",
    [
        {"vector": "parallel", "env_processes": 1, "num_envs": 4, "env_groups": 2},
        {"vector": "batched", "recompute_advantages": True},
        {"env": "shoal.envs.probes:OneWay"},
        {"env": "shoal.envs.probes:Recall", "recurrent": "gru", "recurrent_size": 8, "recompute_advantages": True},
        {"env": "shoal.envs.probes:Lamp", "network": "impala_cnn", "rollout_steps": 4},
    ],
    ids=["parallel", "batched", "masks", "recurrent", "images"],
)
def test_whatever_the_environments_and_the_nets_are_rollouts_come_one_by_one(make, settings):
    algorithm = make(**DYNAMIC, max_lag=1, **settings)
    for iteration in range(3):
        row = algorithm.step()
        assert row["collection/lag_max"] <= min(1, iteration)
        assert np.isfinite(row["learner/policy_loss"])
    heir = make(**DYNAMIC, max_lag=1, **settings)
    heir.restore(algorithm.checkpoint())
    assert heir.step()["collection/dropped"] == 0
    assert heir.incidents == []

"""What a run must remember, to a checkpoint and back; no actors."""

from dataclasses import replace

import numpy as np
import pytest

from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.normalization import RewardScaler, Statistics
from shoal.rllib.policies.policy_spec import PolicySpec
from shoal.rllib.policies.spaces import ActionSpec, InputColumn, ObservationSpec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.training.checkpoints import CheckpointError
from shoal.rllib.training.metrics import RecentEpisodes
from shoal.rllib.training.saved_run import SavedRun

SPEC = PolicySpec(
    ObservationSpec((InputColumn("observation", "numbers", (4,), is_normalizable=True),)),
    ActionSpec((True,), (2,), (0,)),
)


def parts():
    """What the run has that reads."""
    return {
        "algorithm": "ppo",
        "spec": SPEC,
        "optimizer_shapes": lambda: {"moment": (3,)},
        "statistics": Statistics(rewards=RewardScaler(2, 0.9)),
        "schedules": ["learning_rate"],
    }


@pytest.fixture
def saved():
    recent = RecentEpisodes()
    recent.extend([1.5, -2.0], [3, 4])
    return SavedRun(
        weights=Weights(7, SPEC, initial_weights(SPEC, 0)),
        optimizer={"moment": np.arange(3.0)},
        statistics={"rewards": RewardScaler(2, 0.9).arrays()},
        recent=recent.arrays(),
        schedules={"learning_rate": 0.25},
        environments=None,
        steps=640,
        iteration=7,
        episodes=2,
        environments_since=1,
        rollouts=9,
    )


def test_a_run_comes_back_from_its_checkpoint_as_it_was(saved):
    again = SavedRun.read(saved.checkpoint("ppo", {"seed": 3}), **parts())
    assert str(again) == str(saved)


def test_a_checkpoint_without_a_number_of_rollouts_had_one_in_each_iteration(saved):
    older = saved.checkpoint("ppo", {})
    del older.counters["rollouts"]
    assert SavedRun.read(older, **parts()).rollouts == 7


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"algorithm": "appo"}, "a checkpoint of 'ppo' cannot go on as 'appo'"),
        ({"statistics": Statistics()}, "the checkpoint normalises rewards, this run nothing"),
        ({"optimizer_shapes": lambda: {"moment": (4,)}}, "moment has shape"),
        ({"schedules": ["clip"]}, "there must be clip"),
        ({"spec": replace(SPEC, actions=ActionSpec((True,), (3,), (0,)))}, "the checkpoint's policy"),
    ],
)
def test_what_does_not_fit_is_named(saved, change, told):
    with pytest.raises(CheckpointError, match=told):
        SavedRun.read(saved.checkpoint("ppo", {}), **{**parts(), **change})

"""Checkpoints that earlier versions wrote: they are loaded, act as they did, and are gone on with.

Each folder in `golden/` was written by the version in its name and is never written again; the JSON file beside it has
observations, one after the other in an episode, and the actions that the policy gave for them then. When a version
changes what a checkpoint holds, it adds folders of its own and keeps reading these.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.algorithms.ppo import PPO, PPOConfig
from shoal.rllib.config import from_dict
from shoal.rllib.training import checkpoints

GOLDEN = sorted(place for place in (Path(__file__).parent / "golden").iterdir() if place.is_dir())


@pytest.mark.parametrize("place", GOLDEN, ids=lambda place: place.name)
def test_a_checkpoint_of_an_earlier_version_acts_as_it_did(place):
    told = json.loads(place.with_name(f"{place.name}.json").read_text())
    checkpoint = checkpoints.load(place)
    assert checkpoint.counter("steps") == told["steps"]
    policy, states = PPO.policy_from(checkpoint), None
    for row, expected in zip(told["observations"], told["actions"], strict=True):
        action, states = policy.act(np.array([row], np.float32), states, deterministic=True)
        assert action[0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("place", GOLDEN, ids=lambda place: place.name)
def test_a_checkpoint_of_an_earlier_version_is_gone_on_with(place):
    checkpoint = checkpoints.load(place)
    shoal.init(engine="inline")
    try:
        algorithm = PPO(from_dict(PPOConfig, checkpoint.config))
        try:
            algorithm.restore(checkpoint)
            assert algorithm.incidents == []
            row = algorithm.step()
        finally:
            algorithm.close()
    finally:
        shoal.shutdown()
    assert row["steps"] == checkpoint.counter("steps") + 32
    assert row["iteration"] == checkpoint.counter("iteration") + 1

"""What a server goes on with when it was killed."""

import dataclasses

import numpy as np
import pytest

from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.normalization import ObservationNormalizer
from shoal.rllib.policies.policy_spec import PolicySpec
from shoal.rllib.policies.spaces import ActionSpec, InputColumn, ObservationSpec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.training.checkpoints import CheckpointError
from shoal.serving.journal import Journal

SPEC = PolicySpec(ObservationSpec((InputColumn("observation", "numbers", (4,)),)), ActionSpec((True,), (2,), (0,)))


@pytest.fixture
def weights():
    normalizer = ObservationNormalizer(np.arange(4, dtype=np.float32), np.full(4, 0.5, np.float32))
    return Weights(7, SPEC, initial_weights(SPEC, 0), {"observation": normalizer})


def test_weights_come_back_as_they_were_and_newer_ones_take_their_place(weights, tmp_path):
    journal = Journal(tmp_path / "journal")
    assert list(journal.read()) == []
    for version in (7, 8):
        journal.write("a policy's name", dataclasses.replace(weights, version=version))
    [(name, kept)] = journal.read()
    assert (name, kept.version, kept.spec) == ("a policy's name", 8, SPEC)
    for array in SPEC.array_shapes():
        np.testing.assert_array_equal(kept.arrays[array], weights.arrays[array])
    np.testing.assert_array_equal(kept.normalizers["observation"].mean, np.arange(4))
    np.testing.assert_array_equal(kept.normalizers["observation"].scale, np.full(4, 0.5))


def test_what_is_damaged_is_told_and_what_was_never_finished_is_not_there(weights, tmp_path):
    journal = Journal(tmp_path)
    journal.write("walker", weights)
    journal.write("runner", weights)
    (tmp_path / "walker" / "policy.safetensors").write_bytes(b"")
    (tmp_path / ".saving-hopper").mkdir()
    told = dict(journal.read())
    assert set(told) == {"walker", "runner"}
    assert isinstance(told["walker"], CheckpointError)
    assert told["runner"].version == 7

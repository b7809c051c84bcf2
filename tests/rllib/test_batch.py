import numpy as np
import pytest

from shoal.envs.vector import Episode
from shoal.rllib.batch import Batch, FinishedEpisode, concatenate


def batch_of(first_copy, copies, version=0, episodes=()):
    column = np.arange(first_copy, first_copy + copies, dtype=np.float32) * np.ones((3, 1), np.float32)
    flags = np.zeros((3, copies), bool)
    return Batch(column[..., None], column.astype(int), column, column, column, column, flags, flags, episodes, version)


def test_batches_are_joined_side_by_side_in_the_order_given():
    joined = concatenate([batch_of(0, 2), batch_of(2, 1)])
    assert joined.observations.shape == (3, 3, 1)
    assert joined.rewards.tolist() == [[0, 1, 2]] * 3
    assert joined.num_steps == 9


def test_episodes_are_ordered_by_step_and_copy_whoever_sent_them():
    early, late = Episode(2, 1.0, 1), Episode(0, 1.0, 1)
    left = batch_of(0, 2, episodes=(FinishedEpisode(1, Episode(1, 1.0, 1)), FinishedEpisode(2, late)))
    right = batch_of(2, 1, episodes=(FinishedEpisode(1, early),))
    assert [(e.step, e.episode.env_index) for e in concatenate([left, right]).episodes] == [(1, 1), (1, 2), (2, 0)]


def test_a_joined_batch_can_be_written_although_its_parts_came_read_only():
    part = batch_of(0, 2)
    part.rewards.setflags(write=False)
    concatenate([part]).rewards[0, 0] = 5.0


def test_batches_of_different_weights_are_not_joined():
    with pytest.raises(ValueError, match=r"versions \[3, 4\]"):
        concatenate([batch_of(0, 1, version=3), batch_of(1, 1, version=4)])

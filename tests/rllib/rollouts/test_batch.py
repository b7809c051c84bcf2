import dataclasses
import pickle

import numpy as np
import pytest

from shoal.envs.vector import Episode
from shoal.rllib.rollouts.batch import Batch, FinishedEpisode, concatenate


def batch_of(first_copy, copies, version=0, episodes=(), cuts=(), **fields):
    column = np.arange(first_copy, first_copy + copies, dtype=np.float32) * np.ones((3, 1), np.float32)
    flags = np.zeros((3, copies), bool)
    truncated = flags.copy()
    for step, copy in cuts:
        truncated[step, copy] = True
    followed = [10 * step + copy + first_copy for step, copy in sorted(cuts)]
    made = Batch(
        observations={"observation": column[..., None]},
        actions=column.astype(int)[..., None],
        masks=None,
        log_probs=column,
        rewards=column,
        values=column,
        next_values=column,
        terminated=flags,
        truncated=truncated,
        valid=~flags,
        starts=flags,
        states=None,
        last_observations={"observation": column[0, :, None]},
        cut_observations={"observation": np.array(followed).reshape(-1, 1)},
        episodes=episodes,
        version=version,
    )  # fmt: skip
    return dataclasses.replace(made, **fields)


def test_batches_are_joined_side_by_side_in_the_order_given():
    joined = concatenate([batch_of(0, 2), batch_of(2, 1)])
    assert joined.observations["observation"].shape == (3, 3, 1)
    assert joined.last_observations["observation"].tolist() == [[0], [1], [2]]
    assert joined.rewards.tolist() == [[0, 1, 2]] * 3
    assert joined.num_steps == 9


def test_masks_and_recurrent_states_are_joined_where_there_are_any():
    parts = [
        batch_of(0, copies, masks=np.ones((3, copies, 4), bool), states=np.zeros((1, copies, 6), np.float32))
        for copies in (2, 1)
    ]
    joined = concatenate(parts)
    assert joined.masks is not None
    assert joined.states is not None
    assert (joined.masks.shape, joined.states.shape) == ((3, 3, 4), (1, 3, 6))
    with pytest.raises(ValueError, match="with and without action masks"):
        concatenate([parts[0], batch_of(2, 1)])


def test_what_followed_the_cuts_is_in_the_order_of_the_truncated_rows():
    joined = concatenate([batch_of(0, 2, cuts=[(0, 1), (2, 0)]), batch_of(2, 2, cuts=[(0, 0), (1, 1)])])
    expected = [10 * step + copy for step, copy in zip(*np.nonzero(joined.truncated), strict=True)]
    assert joined.cut_observations["observation"][:, 0].tolist() == expected == [1, 2, 13, 20]


def test_rows_that_are_not_valid_are_neither_counted_nor_given_out():
    valid = np.ones((3, 2), bool)
    valid[1, 0] = valid[2, 1] = False
    batch = batch_of(0, 2, valid=valid, rewards=np.arange(6.0).reshape(3, 2))
    assert batch.num_steps == 4
    assert batch.rows(batch.rewards).tolist() == [0, 1, 3, 4]
    assert batch.rows(batch.actions).shape == (4, 1)


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


def test_a_batch_that_travelled_has_its_episodes_as_they_were():
    episodes = tuple(FinishedEpisode(step, Episode(step % 2, 1.5 * step, step + 1)) for step in range(3))
    given = batch_of(0, 2, episodes=episodes)
    come = pickle.loads(pickle.dumps(given))
    assert come.episodes == episodes
    assert [type(part) for finished in come.episodes for part in finished] == [int, Episode] * 3
    assert come.version == given.version
    np.testing.assert_array_equal(come.rewards, given.rewards)


def test_batches_of_several_versions_are_joined_where_that_is_meant_and_called_after_the_oldest():
    parts = [batch_of(0, 2, version=4), batch_of(0, 2, version=3)]
    with pytest.raises(ValueError, match=r"different weights, versions \[3, 4\]"):
        concatenate(parts)
    joined = concatenate(parts, versions_may_differ=True)
    assert joined.version == 3
    assert joined.rewards.tolist() == [[0, 1, 0, 1]] * 3

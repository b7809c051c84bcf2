"""Every valid row once in an epoch; sequences that end where episodes do, in the order that packed sequences have."""

import dataclasses

import numpy as np
import pytest
import torch

from shoal.rllib.learning.minibatches import Sequences, minibatches, samples
from shoal.rllib.rollouts.batch import Batch


def batch_of(num_steps=7, num_envs=3, length=None, seed=0, invalid=0.1):
    """Each row knows its step and copy: the observation is 100 * step + copy, the state of a sequence likewise."""
    rng = np.random.default_rng(seed)
    ended = rng.random((num_steps, num_envs)) < 0.25
    valid = rng.random((num_steps, num_envs)) >= invalid
    ended &= valid
    starts = np.zeros_like(ended)
    starts[1:] = ended[:-1] | ~valid[:-1]
    starts[0] = rng.random(num_envs) < 0.5
    places = (100 * np.arange(num_steps)[:, None] + np.arange(num_envs)).astype(np.float32)
    zeros = np.zeros((num_steps, num_envs), np.float32)
    return Batch(
        observations={"observation": places[..., None]},
        actions=np.zeros((num_steps, num_envs, 1), np.int64),
        masks=None,
        log_probs=zeros,
        rewards=zeros,
        values=zeros,
        next_values=zeros,
        terminated=ended,
        truncated=np.zeros_like(ended),
        valid=valid,
        starts=starts,
        states=None if length is None else places[::length, :, None] + 1.0,
        last_observations={},
        cut_observations={},
        episodes=(),
        version=0,
    )


def columns_of(batch, **more):
    return {name: torch.from_numpy(column) for name, column in samples(batch, batch.observations, **more).items()}


def seen(minibatch):
    return minibatch["observations/observation"][:, 0].tolist()


def valid_places(batch):
    return sorted(batch.observations["observation"][batch.valid][:, 0].tolist())


@pytest.mark.parametrize("seed", range(5))
def test_an_epoch_has_every_valid_row_once_and_no_other_and_each_has_another_order(seed):
    batch = batch_of(seed=seed)
    columns = columns_of(batch, advantages=batch.observations["observation"][..., 0])
    rng = np.random.default_rng(0)
    epochs = [list(minibatches(columns, 4, rng)) for _ in range(2)]
    for epoch in epochs:
        assert sorted(place for minibatch in epoch for place in seen(minibatch)) == valid_places(batch)
        assert {len(seen(minibatch)) for minibatch in epoch[:-1]} == {4}
        for minibatch in epoch:  # the columns stay together
            assert minibatch["advantages"].tolist() == seen(minibatch)
    assert [seen(minibatch) for minibatch in epochs[0]] != [seen(minibatch) for minibatch in epochs[1]]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("num_steps", "length"), [(7, 7), (8, 4), (7, 3), (5, 1), (4, 9)])
def test_pieces_are_the_runs_of_an_episode_within_a_sequence_with_the_state_before_them(num_steps, length, seed):
    batch = batch_of(num_steps, length=length, seed=seed)
    expected = {}  # rows of a piece -> state before it, walking through the batch step by step
    for copy in range(3):
        piece, state = [], 0.0
        for t in range(num_steps):
            if t % length == 0 or batch.starts[t, copy]:
                if piece:
                    expected[tuple(piece)] = state
                piece = []
                state = 0.0 if batch.starts[t, copy] else batch.states[t // length, copy, 0]
            if batch.valid[t, copy]:
                piece.append(100.0 * t + copy)
        if piece:
            expected[tuple(piece)] = state

    sequences, columns, found = Sequences.of(batch, length), columns_of(batch), {}
    rows = 0
    for minibatch in minibatches(columns, 2 * length, np.random.default_rng(seed), sequences):
        assert minibatch["batch_sizes"].device.type == "cpu"
        sizes = minibatch["batch_sizes"].tolist()
        assert sizes == sorted(sizes, reverse=True)
        assert len(minibatch["states"]) == sizes[0]
        places, start = seen(minibatch), 0
        rows += len(places)
        assert len(places) == sum(sizes) <= 2 * length
        pieces = [[] for _ in range(sizes[0])]
        for size in sizes:
            for p in range(size):
                pieces[p].append(places[start + p])
            start += size
        found |= {tuple(piece): state for piece, state in zip(pieces, minibatch["states"][:, 0].tolist(), strict=True)}
    assert found == expected
    assert rows == batch.num_steps


def test_a_sequence_never_leaves_its_copy_and_minibatches_are_of_whole_sequences():
    batch = batch_of(num_steps=8, num_envs=6, length=8, invalid=0.0)
    columns, sequences = columns_of(batch), Sequences.of(batch, 8)
    for minibatch in minibatches(columns, 20, np.random.default_rng(0), sequences):
        copies = {place % 100 for place in seen(minibatch)}
        assert len(copies) == 2  # 20 rows have room for two sequences of 8
        assert len(seen(minibatch)) == 16


def test_sequences_are_shuffled_anew_in_each_epoch():
    batch = batch_of(num_steps=8, num_envs=6, length=4, invalid=0.0)
    columns, sequences, rng = columns_of(batch), Sequences.of(batch, 4), np.random.default_rng(0)
    epochs = [[sorted(seen(minibatch)) for minibatch in minibatches(columns, 8, rng, sequences)] for _ in range(3)]
    first, second, third = epochs
    assert first != second != third != first


def test_sequences_that_have_no_valid_row_leave_no_empty_minibatch():
    batch = batch_of(num_steps=4, num_envs=2, length=2, invalid=0.0)
    valid, starts = np.ones((4, 2), bool), np.zeros((4, 2), bool)
    valid[2:, 0] = False
    starts[3, 0] = True
    batch = dataclasses.replace(batch, valid=valid, starts=starts, terminated=np.zeros((4, 2), bool))
    minis = list(minibatches(columns_of(batch), 2, np.random.default_rng(0), Sequences.of(batch, 2)))
    assert sorted(len(seen(minibatch)) for minibatch in minis) == [2, 2, 2]


def test_masks_are_columns_where_there_are_any():
    batch = dataclasses.replace(batch_of(), masks=np.ones((7, 3, 4), bool))
    assert columns_of(batch)["masks"].shape == (batch.num_steps, 4)
    assert "masks" not in columns_of(batch_of())

"""Segments of simulators as a batch: whatever their lengths, an estimate is that of the segment by itself."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import example, given, settings, strategies as st

from shoal.rllib.learning.advantages import gae
from shoal.rllib.learning.minibatches import Sequences
from shoal.rllib.policies.initial_weights import initial_weights
from shoal.rllib.policies.policy import Policy
from shoal.rllib.policies.policy_spec import NetworkSettings, policy_spec
from shoal.rllib.policies.weights import Weights
from shoal.rllib.rollouts.external import ExternalSegment, packed
from shoal.rllib.rollouts.rollout import revalued


def spec_of(**network):
    settings = NetworkSettings(hidden_sizes=(4,), **network)
    return policy_spec("a test's", spaces.Box(-9, 9, (2,), np.float32), spaces.Discrete(3), settings)


SPEC = spec_of()
REMEMBERS = spec_of(recurrent="gru", recurrent_size=3, sequence_length=2)


def segment(rng, length, *, first_step=0, terminated=False, spec=SPEC, masked=False, version=0):
    values = rng.standard_normal(length + 1).astype(np.float32)
    states = rng.standard_normal((length, spec.state_size)).astype(np.float32)
    if first_step == 0:
        states[0] = 0.0
    return ExternalSegment(
        first_step=first_step,
        observations={"observation": rng.standard_normal((length, 2)).astype(np.float32)},
        actions=rng.integers(0, 3, (length, 1)),
        masks=np.ones((length, 3), bool) if masked else None,
        log_probs=rng.standard_normal(length).astype(np.float32),
        rewards=rng.standard_normal(length).astype(np.float32),
        values=values[:length],
        states=states,
        versions=np.full(length, version),
        last_observation=None if terminated else {"observation": rng.standard_normal(2).astype(np.float32)},
        last_value=0.0 if terminated else float(values[length]),
    )


def literal_gae(segment, gamma, lam):
    """The double sum of eq. 16, of one segment."""
    values = [*segment.values, segment.last_value]
    deltas = [segment.rewards[t] + gamma * values[t + 1] - values[t] for t in range(len(segment))]
    return [sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(segment))]


SEGMENTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1), st.booleans()), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(SEGMENTS, st.integers(0, 2**16), st.booleans())
def test_every_row_is_there_once_and_has_the_advantage_of_its_segment(shapes, seed, remembers):
    rng, spec = np.random.default_rng(seed), REMEMBERS if remembers else SPEC
    segments = [
        segment(rng, length, first_step=7 * first, terminated=ends, spec=spec) for length, first, ends in shapes
    ]
    batch = packed(segments, spec)
    assert batch.num_steps == sum(map(len, segments))
    assert len(batch.valid) == max(map(len, segments))
    advantages, _ = gae(
        batch.rewards, batch.values, batch.next_values, batch.terminated, batch.truncated, batch.valid,
        gamma=0.9, lam=0.7,
    )  # fmt: skip
    expected = {
        float(each.log_probs[t]): value for each in segments for t, value in enumerate(literal_gae(each, 0.9, 0.7))
    }
    assert len(batch.rows(advantages)) == len(expected)
    for log_prob, advantage in zip(batch.rows(batch.log_probs), batch.rows(advantages), strict=True):
        assert advantage == pytest.approx(expected[float(log_prob)], abs=1e-4)
    assert batch.terminated.sum() == sum(each.last_observation is None for each in segments)
    assert len(batch.cut_observations["observation"]) == batch.truncated.sum()
    if remembers:
        _check_states(batch, segments)


def _check_states(batch, segments):
    """The state that a row is learned from is the one that it was acted from, wherever a piece begins."""
    state_of = {float(each.log_probs[t]): each.states[t] for each in segments for t in range(len(each))}
    starts_of = {float(each.log_probs[0]) for each in segments if each.first_step == 0}
    sequences = Sequences.of(batch, 2)
    log_probs = batch.rows(batch.log_probs)
    begins = np.cumsum(sequences.lengths) - sequences.lengths
    for state, begin in zip(sequences.states, begins, strict=True):
        log_prob = float(log_probs[sequences.order[begin]])
        expected = np.zeros(3) if log_prob in starts_of else state_of[log_prob][:3]
        np.testing.assert_array_equal(state[:3], expected)


def test_what_follows_a_cut_is_seen_by_another_critic_too():
    rng = np.random.default_rng(0)
    segments = [segment(rng, length, terminated=length == 2) for length in (2, 5, 3)]
    batch = packed(segments, SPEC)
    policy = Policy(Weights(1, SPEC, initial_weights(SPEC, 0)))
    values, next_values = revalued(batch, policy)
    for each in segments:
        rows = np.isin(batch.log_probs, each.log_probs)
        np.testing.assert_array_equal(values[rows], policy.values(each.observations))
        last = np.isin(batch.log_probs, each.log_probs[-1])
        ends = each.last_observation is None
        follows = 0.0 if ends else policy.values({"observation": each.last_observation["observation"][None]})[0]
        assert next_values[last] == follows


def test_masks_of_some_and_versions_of_all_and_episodes_that_ended():
    rng = np.random.default_rng(0)
    segments = [segment(rng, 2, masked=True, version=3), segment(rng, 4, version=5)]
    batch = packed(segments, SPEC, [(12.5, 40)])
    assert batch.masks.all()
    assert batch.version == 3
    assert [finished.episode[1:] for finished in batch.episodes] == [(12.5, 40)]
    assert packed(segments[1:], SPEC).masks is None


def test_short_segments_share_columns():
    rng = np.random.default_rng(0)
    batch = packed([segment(rng, length) for length in (8, 4, 4, 3, 5)], SPEC)
    assert batch.valid.shape == (8, 3)
    batch = packed([segment(rng, 4, first_step=1, spec=REMEMBERS) for _ in range(3)], REMEMBERS)
    assert batch.valid.shape == (4, 3)
    assert not batch.starts[0].any()


def test_of_a_recurrent_policy_segments_within_an_episode_share_columns_from_every_second_row_on():
    rng = np.random.default_rng(0)
    segments = [segment(rng, 9, first_step=1, spec=REMEMBERS)]
    segments += [segment(rng, 1, first_step=5, spec=REMEMBERS) for _ in range(9)]
    batch = packed(segments, REMEMBERS)
    assert batch.valid.shape == (9, 3)  # 9 rows; 5 of one with a gap behind each; 4 of them
    assert batch.valid[:, 1].tolist() == [True, False] * 4 + [True]
    assert batch.valid[:, 2].tolist() == [True, False] * 4 + [False]
    assert not batch.starts[batch.valid].any()
    assert batch.goes_on_elsewhere[:, 1].tolist() == [False, False] + [True, False] * 3 + [True]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=60), st.sampled_from([1, 2, 8, 32]))
@example([(60, True), *([(1, True)] * 59)], 2)
def test_a_batch_has_no_more_rows_than_are_told(shapes, sequence_length):
    rng, spec = np.random.default_rng(0), spec_of(recurrent="gru", recurrent_size=1, sequence_length=sequence_length)
    segments = [segment(rng, length, first_step=3 * goes_on, spec=spec) for length, goes_on in shapes]
    lengths = [length for length, _ in shapes]
    most = 2 * sum(lengths) + 3 * len(lengths) * (sequence_length - 1) + max(lengths)
    assert packed(segments, spec).valid.size <= most


def test_what_a_recurrent_critic_expects_is_that_of_each_segment_by_itself_wherever_it_lies():
    rng, spec = np.random.default_rng(0), REMEMBERS
    shapes = [(9, 4), (1, 3), (2, 0), (3, 7), (1, 1), (4, 0), (2, 2), (5, 6)]
    segments = [segment(rng, length, first_step=first, spec=spec, terminated=length == 2) for length, first in shapes]
    batch = packed(segments, spec)
    assert batch.goes_on_elsewhere.any()
    policy = Policy(Weights(1, spec, initial_weights(spec, 0)))
    values, next_values = revalued(batch, policy)
    for each in segments:
        own, following = revalued(packed([each], spec), policy)
        rows = np.isin(batch.log_probs, each.log_probs)
        np.testing.assert_array_equal(values[rows], own[:, 0])
        np.testing.assert_array_equal(next_values[rows], following[:, 0])

import numpy as np
import pytest

from shoal.rllib.policies.normalization import ObservationNormalizer, RewardScaler, RunningMoments


def streamed(rows, *cuts):
    moments = RunningMoments(rows.shape[1:])
    for part in np.split(rows, cuts):
        moments.update(part)
    return moments


@pytest.mark.parametrize("seed", range(5))
def test_moments_of_a_stream_are_those_of_all_its_rows_together(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(1e3, 5.0, (200, 3))
    moments = streamed(rows, *sorted(rng.choice(np.arange(1, 200), 6, replace=False)))
    assert moments.count == 200
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, rows.var(axis=0), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_moments_of_several_workers_merged_in_any_order_are_those_of_all_rows(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(-20.0, 3.0, (150, 2))
    parts = [streamed(part) for part in np.split(rows, [0, 10, 11, 90])]
    merged = RunningMoments((2,))
    for k in rng.permutation(len(parts)):
        merged.merge(parts[k])
    assert merged.count == 150
    np.testing.assert_allclose(merged.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.variance, rows.var(axis=0), rtol=1e-9)


def test_observations_get_mean_zero_and_deviation_one():
    rows = np.random.default_rng(0).normal([5.0, -300.0], [0.1, 40.0], (5_000, 2)).astype(np.float32)
    normalized = ObservationNormalizer.of(streamed(rows))(rows)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(normalized.std(axis=0), 1.0, atol=1e-3)


def test_before_the_first_row_observations_pass_and_far_ones_are_cut():
    normalizer = ObservationNormalizer.of(RunningMoments((2,)))
    np.testing.assert_allclose(normalizer(np.array([[3.0, -40.0]], np.float32)), [[3.0, -10.0]], rtol=1e-6)


def test_a_normaliser_is_frozen_when_the_statistics_move_on():
    moments = streamed(np.array([[1.0], [3.0]]))
    normalizer = ObservationNormalizer.of(moments)
    moments.update(np.array([[100.0]]))
    assert normalizer(np.array([[3.0]], np.float32)).item() == pytest.approx(1.0)


def test_rewards_are_divided_by_the_deviation_of_the_literal_discounted_returns():
    rng = np.random.default_rng(1)
    rewards, ends = rng.normal(0.0, 3.0, (60, 2)), rng.random((60, 2)) < 0.1
    valid = rng.random((60, 2)) < 0.9
    rewards[~valid], ends[~valid] = 0.0, False
    gamma, returns = 0.9, []
    for b in range(2):
        for t in np.flatnonzero(valid[:, b]):
            start = max([s + 1 for s in range(t) if ends[s, b] or not valid[s, b]], default=0)
            returns.append(sum(gamma ** (t - s) * rewards[s, b] for s in range(start, t + 1)))
    scaled = RewardScaler(2, gamma)(rewards, ends, valid)
    np.testing.assert_allclose(scaled, np.clip(rewards / np.std(returns), -10, 10), rtol=1e-5)


def test_scaled_rewards_are_cut_at_ten_deviations():
    rewards = np.zeros((300, 1))
    rewards[[50, 150], 0] = 9.0, -9.0
    every = np.ones((300, 1), bool)
    assert 9.0 / rewards.std() > 12.0
    assert RewardScaler(1, 0.9)(rewards, every, every)[[50, 150], 0].tolist() == [10.0, -10.0]


def test_returns_go_on_over_the_edge_between_rollouts():
    rng = np.random.default_rng(2)
    rewards, ends = rng.normal(0.0, 3.0, (40, 2)), rng.random((40, 2)) < 0.1
    whole, parts = RewardScaler(2, 0.9), RewardScaler(2, 0.9)
    all_valid = np.ones_like(ends)
    whole(rewards, ends, all_valid)
    parts(rewards[:17], ends[:17], all_valid[:17])
    parts(rewards[17:], ends[17:], all_valid[17:])
    for name, array in whole.arrays().items():
        np.testing.assert_allclose(parts.arrays()[name], array, rtol=1e-9, err_msg=name)


def test_a_scaler_that_takes_over_anothers_arrays_goes_on_bit_for_bit():
    rewards, ends = np.random.default_rng(3).normal(0.0, 3.0, (40, 2)), np.zeros((40, 2), bool)
    half = np.ones((20, 2), bool)
    scaler, heir = RewardScaler(2, 0.9), RewardScaler(2, 0.9)
    scaler(rewards[:20], ends[:20], half)
    heir(rewards[20:], ends[20:], half)
    heir.load(scaler.arrays())
    np.testing.assert_array_equal(heir(rewards[20:], ends[20:], half), scaler(rewards[20:], ends[20:], half))


def test_a_scaler_of_another_number_of_environments_takes_over_the_statistics_alone():
    scaler, heir = RewardScaler(2, 0.9), RewardScaler(3, 0.9)
    scaler(np.ones((4, 2)), np.zeros((4, 2), bool), np.ones((4, 2), bool))
    heir.load(scaler.arrays())
    assert heir.arrays()["count"] == 8
    assert heir.arrays()["returns"].tolist() == [0.0, 0.0, 0.0]


def test_returns_of_a_copy_that_is_there_twice_go_on_from_column_to_column():
    rng = np.random.default_rng(4)
    rewards, ends, valid = rng.normal(0.0, 3.0, (20, 3)), rng.random((20, 3)) < 0.1, rng.random((20, 3)) < 0.9
    apart, together = RewardScaler(3, 0.9), RewardScaler(3, 0.9)
    for half in (slice(0, 10), slice(10, 20)):
        apart(rewards[half], ends[half], valid[half])
    # Copies 2 and 1, then 0, then the second halves of 1, 0 and 2.
    columns = [(0, 2), (0, 1), (0, 0), (1, 1), (1, 0), (1, 2)]
    joined = [np.stack([x[10 * half : 10 * half + 10, copy] for half, copy in columns], axis=1)
              for x in (rewards, ends, valid)]  # fmt: skip
    scaled = together(*joined, np.array([copy for _, copy in columns]))
    for name, array in apart.arrays().items():
        np.testing.assert_allclose(together.arrays()[name], array, rtol=1e-9, err_msg=name)
    deviation = np.sqrt(together.arrays()["squares"] / together.arrays()["count"])
    np.testing.assert_allclose(scaled, (joined[0] / deviation).clip(-10, 10), rtol=1e-5)


def test_the_return_of_a_copy_whose_episode_begins_anew_starts_from_nothing():
    scaler = RewardScaler(2, 0.5)
    ones, never = np.ones((2, 3)), np.zeros((2, 3), bool)
    scaler(ones, never, ~never, np.array([0, 1, 0]), begins=np.array([True, True, False]))
    assert scaler.arrays()["returns"].tolist() == [1.875, 1.5]
    scaler(ones, never, ~never, np.array([1, 0, 0]), begins=np.array([False, False, True]))
    assert scaler.arrays()["returns"].tolist() == [1.5, 1.875]

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from shoal.rllib.learning.advantages import gae
from shoal.rllib.learning.vtrace import vtrace


def literal_vtrace(rollout, gamma, lam, rho_bar, c_bar):
    """Eq. 1 and section 4.2 written out: for each row a sum over the steps up to the end of its episode, of the
    rollout, or up to a row that is not valid; in each of them a product over the steps before.
    """
    rewards, values, next_values, log_ratios, terminated, truncated, valid = rollout
    T, B = rewards.shape
    targets, advantages = values.astype(np.float64), np.zeros((T, B))
    for b in range(B):
        for s in range(T):
            for t in range(s, T):
                if not valid[t, b]:
                    break
                product = 1.0
                for i in range(s, t):
                    product *= lam * min(c_bar, np.exp(log_ratios[i, b]))
                successor = 0.0 if terminated[t, b] else next_values[t, b]
                rho = min(rho_bar, np.exp(log_ratios[t, b]))
                delta = rho * (rewards[t, b] + gamma * successor - values[t, b])
                targets[s, b] += gamma ** (t - s) * product * delta
                if terminated[t, b] or truncated[t, b]:
                    break
        for s in range(T):
            if not valid[s, b]:
                continue
            successor = 0.0 if terminated[s, b] else next_values[s, b]
            if s + 1 < T and valid[s + 1, b] and not (terminated[s, b] or truncated[s, b]):
                successor = lam * targets[s + 1, b] + (1.0 - lam) * values[s + 1, b]
            rho = min(rho_bar, np.exp(log_ratios[s, b]))
            advantages[s, b] = rho * (rewards[s, b] + gamma * successor - values[s, b])
    return targets, advantages


def a_rollout(seed, T, B, p_end, p_invalid, ratio_scale=0.8):
    """rewards, values, next_values, log_ratios, terminated, truncated, valid; rows that go on have the next's value."""
    rng = np.random.default_rng(seed)
    rewards, values, next_values, log_ratios = rng.standard_normal((4, T, B))
    ends, valid = rng.random((T, B)), rng.random((T, B)) >= p_invalid
    terminated, truncated = (ends < p_end) & valid, (ends > 1.0 - p_end) & valid
    goes_on = ~(terminated | truncated)[:-1]
    next_values[:-1][goes_on] = values[1:][goes_on]
    return rewards, values, next_values, ratio_scale * log_ratios, terminated, truncated, valid


rollouts = st.builds(
    a_rollout,
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.15, 0.5]),
    st.sampled_from([0.0, 0.2, 1.0]),
)
fractions = st.sampled_from([0.0, 0.5, 0.95, 1.0])
cuts = st.sampled_from([0.0, 0.5, 1.0, 2.0, np.inf])


@settings(max_examples=150, deadline=None)
@given(rollout=rollouts, gamma=fractions, lam=fractions, rho_bar=cuts, c_bar=cuts)
def test_targets_and_advantages_are_the_literal_sums_of_products(rollout, gamma, lam, rho_bar, c_bar):
    found = vtrace(*rollout, gamma=gamma, lam=lam, rho_bar=rho_bar, c_bar=c_bar)
    targets, advantages = literal_vtrace(rollout, gamma, lam, rho_bar, c_bar)
    np.testing.assert_allclose(found.targets, targets, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.advantages, advantages, rtol=1e-10, atol=1e-10)
    expected = np.where(rollout[-1], np.minimum(rho_bar, np.exp(rollout[3])), 0.0)
    np.testing.assert_allclose(found.rhos, expected, rtol=1e-14)


@settings(max_examples=50, deadline=None)
@given(rollout=rollouts, gamma=fractions, lam=fractions)
def test_with_the_policy_that_acted_it_is_generalised_advantage_estimation(rollout, gamma, lam):
    rewards, values, next_values, _, terminated, truncated, valid = rollout
    found = vtrace(rewards, values, next_values, np.zeros_like(values), *rollout[4:], gamma=gamma, lam=lam)
    advantages, returns = gae(rewards, values, next_values, terminated, truncated, valid, gamma=gamma, lam=lam)
    np.testing.assert_allclose(found.advantages, advantages, atol=1e-12)
    np.testing.assert_allclose(found.targets, returns, atol=1e-12)


def test_the_targets_without_cuts_are_importance_sampled_returns():
    """With one action whose ratio is w in every step: v_0 is V + w (r_0 + ..) as eq. 1 telescopes, three steps."""
    rewards, flags = np.array([[1.0], [2.0], [4.0]]), np.zeros((3, 1), bool)
    last, nothing, log_two = flags.copy(), np.zeros((3, 1)), np.full((3, 1), np.log(2.0))
    last[-1] = True
    found = vtrace(rewards, nothing, nothing, log_two, last, flags, gamma=0.5, rho_bar=np.inf, c_bar=np.inf)
    np.testing.assert_allclose(found.targets[:, 0], [2 * 1 + 4 * 0.5 * 2 + 8 * 0.25 * 4, 2 * 2 + 4 * 0.5 * 4, 2 * 4])


def test_a_truncated_episode_is_worth_its_last_observation_and_a_terminated_one_nothing():
    rewards, values, nothing = np.ones((1, 1)), np.full((1, 1), 3.0), np.zeros((1, 1), bool)
    given_values = (rewards, values, np.full((1, 1), 7.0), np.zeros((1, 1)))
    assert vtrace(*given_values, nothing, ~nothing, gamma=0.5).targets == 1.0 + 0.5 * 7.0
    assert vtrace(*given_values, ~nothing, nothing, gamma=0.5).targets == 1.0


def test_a_row_that_is_not_valid_gives_nothing_to_any_other_whatever_it_holds():
    *rollout, terminated, truncated, valid = a_rollout(3, 20, 3, 0.15, 0.3)
    flags = (terminated, truncated, valid)
    clean = vtrace(*rollout, *flags, gamma=0.9, lam=0.8)
    rewards, values, next_values, log_ratios = (array.copy() for array in rollout)
    rewards[~valid] = next_values[~valid] = log_ratios[~valid] = np.nan
    found = vtrace(rewards, values, next_values, log_ratios, *flags, gamma=0.9, lam=0.8)
    for mine, expected in zip(found, clean, strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert (found.advantages[~valid] == 0.0).all()
    np.testing.assert_array_equal(found.targets[~valid], values[~valid])


def test_an_action_that_has_become_impossible_to_compare_is_cut_like_any_other():
    rollout = [array.astype(np.float32) for array in a_rollout(5, 6, 2, 0.0, 0.0)[:4]]
    rollout[3][:] = 200.0  # exp overflows float32
    flags = np.zeros((6, 2), bool)
    found = vtrace(*rollout, flags, flags, gamma=0.9)
    one = vtrace(*rollout[:3], np.zeros_like(rollout[3]), flags, flags, gamma=0.9)
    for mine, expected in zip(found, one, strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays_and_inputs_may_be_read_only(dtype):
    arrays = [array.astype(dtype) for array in a_rollout(7, 5, 2, 0.2, 0.2)[:4]]
    for array in arrays:
        array.setflags(write=False)
    flags = np.zeros((5, 2), bool)
    found = vtrace(*arrays, flags, flags, ~flags, gamma=0.99, lam=0.95, rho_bar=2.0, c_bar=1.5)
    assert [array.dtype for array in found] == [dtype] * 3

"""What holds for every strategy that is told sums, on random returns."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as some

from shoal.algorithms.strategies.ars import ARS
from shoal.algorithms.strategies.open_es import OpenES
from shoal.algorithms.strategies.pgpe import PGPE
from shoal.algorithms.strategies.snes import SNES
from shoal.algorithms.strategies.strategy import Weighing, summed
from shoal.rllib.evolution.noise import PhiloxNoise

KINDS = [ARS, OpenES, PGPE, SNES]
NOISE = PhiloxNoise(seed=1, size=6)

every_kind = pytest.mark.parametrize("kind", KINDS)
# Few values, so that many are equal.
some_returns = some.lists(some.tuples(some.integers(-3, 3), some.integers(-3, 3)), min_size=1, max_size=12)


def made(kind, num_pairs, **others):
    return kind(np.linspace(-1, 1, 6), num_pairs=num_pairs, **others)


def told(strategy, returns, used, noise=NOISE):
    before = {name: array.tobytes() for name, array in strategy.state().items()}
    strategy.ask()
    weighing = strategy.weigh(returns, used)
    assert before == {name: array.tobytes() for name, array in strategy.state().items()}  # it changes nothing
    strategy.tell(summed(noise, strategy.generation, weighing), weighing)
    return strategy


def same(one, other):
    for name, array in one.state().items():
        np.testing.assert_allclose(array, other.state()[name], rtol=1e-5, atol=1e-6)


@every_kind
@given(some_returns, some.data())
@settings(max_examples=15)
def test_pairs_that_are_not_used_are_as_if_they_had_not_been_asked_for(kind, pairs, data):
    used = np.array(data.draw(some.lists(some.booleans(), min_size=len(pairs), max_size=len(pairs))))
    if not used.any():
        used[0] = True
    returns = np.where(used[:, None], np.array(pairs, float), np.nan)

    class Chosen:
        size = 6

        def rows(self, generation, indices):
            return NOISE.rows(generation, np.flatnonzero(used)[indices])

    few = made(kind, int(used.sum()))
    same(told(made(kind, len(pairs)), returns, used), told(few, returns[used], np.ones(used.sum(), bool), Chosen()))


@every_kind
@given(some_returns)
@settings(max_examples=15)
def test_which_sign_is_called_plus_does_not_matter(kind, pairs):
    class Mirrored:
        size = 6

        def rows(self, generation, indices):
            return -NOISE.rows(generation, indices)

    returns, used = np.array(pairs, float), np.ones(len(pairs), bool)
    same(
        told(made(kind, len(pairs)), returns, used),
        told(made(kind, len(pairs)), returns[:, ::-1], used, Mirrored()),
    )


@every_kind
@given(some_returns, some.floats(0.01, 100), some.floats(-100, 100))
@settings(max_examples=15)
def test_scale_and_offset_of_returns_do_not_matter(kind, pairs, scale, offset):
    returns, used = np.array(pairs, float), np.ones(len(pairs), bool)
    # Multiples of 2**-10, so that equal returns stay equal and different ones different.
    scale, offset = (max(round(number * 1024), 1) / 1024 for number in (scale, offset))
    same(
        told(made(kind, len(pairs)), returns, used),
        told(made(kind, len(pairs)), returns * scale + offset, used),
    )


@every_kind
@given(some_returns)
@settings(max_examples=15)
def test_weights_are_finite_and_no_larger_than_the_population_allows(kind, pairs):
    weighing = made(kind, len(pairs)).weigh(np.array(pairs, float), np.ones(len(pairs), bool))
    assert isinstance(weighing, Weighing)
    for weights in weighing.weights.values():
        assert weights.shape == (len(pairs),)
        assert weights.dtype == np.float64
        assert np.isfinite(weights).all()
        assert np.abs(weights).max() <= 2.0


@every_kind
def test_more_returns_than_were_asked_for_may_be_weighed(kind):
    rng = np.random.default_rng(0)
    strategy = told(made(kind, 3), rng.standard_normal((5, 2)), np.ones(5, bool))
    assert strategy.generation == 1
    assert np.isfinite(strategy.centre).all()


@every_kind
def test_a_state_of_another_size_changes_nothing(kind):
    strategy = made(kind, 3)
    foreign = kind(np.zeros(7), num_pairs=3).state()
    with pytest.raises(ValueError, match=r"the saved state has float32 \(7,\) for 'centre': it must be float32 \(6,\)"):
        strategy.restore(foreign)
    same(strategy, made(kind, 3))

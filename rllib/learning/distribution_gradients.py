"""The distributions of ``distributions.py`` with derivatives, in numpy: what ``torch_distributions.py`` leaves to
autograd.

    evaluation = evaluate(distribution, parameters, actions, masks)     log_probs [N], entropies [N]
    evaluation.gradient(by_log_probs, by_entropies)                     by each parameter, [N, num_parameters]

Tables of choices stand on their side here, choices before rows: numpy sums along the last axis row by row, and rows of
two choices would take eight times as long as two rows of 256.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..policies.distributions import (
    FORBIDDEN,
    LOG_STD_BOUNDS,
    Categorical,
    DiagonalGaussian,
    Distribution,
    hermite_rule,
    log_tanh_slope,
)


class Evaluation(Protocol):
    """How likely actions were, and how open the choice."""

    log_probs: np.ndarray  #: [N] float32
    entropies: np.ndarray  #: [N] float32; the entropy of a squashed normal is that of its tanh

    def gradient(self, by_log_probs: np.ndarray, by_entropies: float) -> np.ndarray:
        """Derivatives [N, num_parameters] of a loss by the parameters.

        Args:
          by_log_probs: [N], its derivative by each log-probability.
          by_entropies: Its derivative by the entropy of a row, the same for all rows.
        """


def evaluate(
    distribution: Distribution, parameters: np.ndarray, actions: np.ndarray, masks: np.ndarray | None
) -> Evaluation:
    """What ``torch_distributions.evaluate`` gives, ready to be differentiated.

    Args:
      distribution: Of the actions.
      parameters: [N, P] float32, rows as ``distributions.py`` tells.
      actions: [N, W] int64, or float32 where there are real numbers among them; as sampled.
      masks: [N, num_choices] bool, True where allowed; None allows all.
    """
    if isinstance(distribution, Categorical):
        return _choices(distribution, parameters, actions, masks)
    if isinstance(distribution, DiagonalGaussian):
        return _reals(distribution, parameters, actions)
    count = distribution.num_choices
    chosen = actions[:, distribution.choice_places].astype(np.int64)
    return _Both(
        _choices(distribution.choices, parameters[:, :count], chosen, masks),
        _reals(distribution.reals, parameters[:, count:], actions[:, distribution.real_places]),
    )


@dataclass
class _Choices:
    """Choices in a table [K, largest size, N]."""

    distribution: Categorical
    masks: np.ndarray | None
    probabilities: np.ndarray
    log_probabilities: np.ndarray
    places: np.ndarray  #: [K, N] int64: where in the flat table what was chosen is
    log_probs: np.ndarray
    entropies: np.ndarray
    each_entropy: np.ndarray  #: [K, 1, N]

    def gradient(self, by_log_probs: np.ndarray, by_entropies: float) -> np.ndarray:
        table = self.probabilities * -by_log_probs
        flat = table.reshape(-1)
        flat[self.places] += by_log_probs
        if by_entropies:
            surprise = self.log_probabilities + self.each_entropy
            surprise *= self.probabilities
            surprise *= -by_entropies
            table += surprise
        rows = table.reshape(-1, len(by_log_probs))
        if len(rows) != self.distribution.num_choices:  # less those that do not exist
            rows = rows[self.distribution.places.reshape(-1) < self.distribution.num_choices]
        gradient: np.ndarray = rows.T if self.masks is None else rows.T * self.masks
        return gradient


@dataclass
class _Reals:
    """Real numbers."""

    distribution: DiagonalGaussian
    scaled: np.ndarray  #: [N, A]: distance of each action from its mean, in deviations
    precisions: np.ndarray  #: [N, A]: 1 / deviation
    is_bounded: np.ndarray | None  #: [N, A] bool: predicted log standard deviations that were cut
    log_probs: np.ndarray
    entropies: np.ndarray
    #: [N, A] each, if squashed: derivatives of the entropy by means and log standard deviations
    entropy_slopes: tuple[np.ndarray, np.ndarray] | None

    def gradient(self, by_log_probs: np.ndarray, by_entropies: float) -> np.ndarray:
        column = by_log_probs[:, None]
        by_means = self.scaled * self.precisions
        by_means *= column
        by_log_stds = self.scaled * self.scaled
        by_log_stds -= 1.0
        by_log_stds *= column
        by_log_stds += by_entropies
        if self.entropy_slopes is not None:
            by_means += by_entropies * self.entropy_slopes[0]
            by_log_stds += by_entropies * self.entropy_slopes[1]
        if self.is_bounded is not None:
            by_log_stds[self.is_bounded] = 0.0
        return np.concatenate([by_means, by_log_stds], axis=1)


class _Both:
    """Choices and real numbers, independent of each other."""

    def __init__(self, choices: _Choices, reals: _Reals) -> None:
        self._parts = choices, reals
        self.log_probs = choices.log_probs + reals.log_probs
        self.entropies = choices.entropies + reals.entropies

    def gradient(self, by_log_probs: np.ndarray, by_entropies: float) -> np.ndarray:
        return np.concatenate([part.gradient(by_log_probs, by_entropies) for part in self._parts], axis=1)


def _choices(distribution: Categorical, logits: np.ndarray, actions: np.ndarray, masks: np.ndarray | None) -> _Choices:
    count, kinds = len(logits), len(distribution.sizes)
    if masks is not None:
        logits = np.where(masks, logits, np.float32(FORBIDDEN))
    if distribution.num_choices == distribution.places.size:
        table = np.array(logits.T, order="C").reshape(kinds, -1, count)
    else:
        absent = np.full((1, count), FORBIDDEN, np.float32)
        table = np.concatenate([logits.T, absent])[distribution.places]
    table -= np.maximum.reduce(table, axis=1, keepdims=True)
    probabilities = np.exp(table)
    totals = np.add.reduce(probabilities, axis=1, keepdims=True)
    probabilities /= totals
    table -= np.log(totals)
    each_entropy = -np.add.reduce(probabilities * table, axis=1, keepdims=True)
    places = actions.T * count + np.arange(count)
    if kinds > 1:
        places += np.arange(0, table.size, table.size // kinds)[:, None]
    chosen = table.reshape(-1)[places]
    return _Choices(
        distribution,
        masks,
        probabilities,
        table,
        places,
        log_probs=chosen[0] if kinds == 1 else np.add.reduce(chosen, axis=0),
        entropies=each_entropy[0, 0] if kinds == 1 else np.add.reduce(each_entropy, axis=(0, 1)),
        each_entropy=each_entropy,
    )


def _reals(distribution: DiagonalGaussian, parameters: np.ndarray, actions: np.ndarray) -> _Reals:
    means, log_stds = parameters[:, : distribution.size], parameters[:, distribution.size :]
    is_bounded = None
    if distribution.predicts_log_std:
        low, high = LOG_STD_BOUNDS
        is_bounded = (log_stds < low) | (log_stds > high)
        log_stds = log_stds.clip(low, high)
    precisions = np.exp(-log_stds)
    scaled = actions - means
    scaled *= precisions
    constant = 0.5 * math.log(2.0 * math.pi) * distribution.size
    log_probs = np.add.reduce(-0.5 * scaled * scaled - log_stds, axis=1) - np.float32(constant)
    entropies = np.add.reduce(log_stds, axis=1) + np.float32(constant + 0.5 * distribution.size)
    slopes = None
    if distribution.is_squashed:
        log_probs -= np.add.reduce(log_tanh_slope(actions), axis=1)
        taken, by_means, by_log_stds = _expected_log_slope(means, np.exp(log_stds))
        entropies += np.add.reduce(taken, axis=1)
        slopes = by_means, by_log_stds
    return _Reals(distribution, scaled, precisions, is_bounded, log_probs, entropies, slopes)


def _expected_log_slope(means: np.ndarray, stds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[log(1 - tanh(x)^2)] of normals [N, A], by Gauss-Hermite quadrature: what squashing takes from the entropy.

    Returns:
      It, and its derivatives by means and by log standard deviations; [N, A] each. The slope of what is summed is
      -2 tanh(x).
    """
    points, shares = hermite_rule()
    spread = stds.reshape(-1, 1) * points  # [N A, 16]
    at = means.reshape(-1, 1) + spread
    expected = log_tanh_slope(at) @ shares
    slopes = np.tanh(at)
    by_means = -2.0 * (slopes @ shares)
    slopes *= spread
    by_log_stds = -2.0 * (slopes @ shares)
    return expected.reshape(means.shape), by_means.reshape(means.shape), by_log_stds.reshape(means.shape)

"""Action distributions over rows of parameters, in numpy; their torch twins are in ``torch_distributions.py``.

A policy network gives a row of ``num_outputs`` numbers for each observation; a distribution turns rows of parameters
into actions and log-probabilities. Three of them, and every action space is one: ``Categorical`` (one or several
independent choices: Discrete, MultiDiscrete, MultiBinary), ``DiagonalGaussian`` (real numbers, also squashed by tanh)
and ``Product`` (both, side by side). Parts are independent: log-probabilities and entropies are summed over them.

    a row of parameters    logits of all choices | means | log standard deviations
    a mask                 one bool for each logit, True where the choice is allowed
    an action              [W], one number for each choice or real number, in the order of the action space

Randomness comes in from outside: ``draw`` takes one copy's numbers from that copy's stream, and ``sample`` is a pure
function of parameters, noise and masks. So what a copy does never depends on which other copies share its batch.

Sampled actions are what is stored and learned from: counted from 0, neither clipped nor squashed. What the environment
gets of them is ``spaces.ActionSpec.for_environment``'s to say. The two must not be mixed up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Logit of a choice that is not allowed. Its probability is 0 exactly, and 0 times this is no NaN, as with -inf.
FORBIDDEN = -1e8

#: Bounds of a log standard deviation that depends on the observation (CleanRL's): float32 keeps a density within them.
LOG_STD_BOUNDS = (-5.0, 2.0)

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Categorical:
    """Independent choices, one of ``sizes[k]`` each; parameters are unnormalised log-probabilities, side by side.

    Actions are int64 [N, K].
    """

    sizes: tuple[int, ...]

    @property
    def num_choices(self) -> int:
        """Logits in a row, and bools in a mask."""
        return sum(self.sizes)

    @property
    def num_outputs(self) -> int:
        """Numbers that the network gives for an observation."""
        return self.num_choices

    @property
    def num_parameters(self) -> int:
        """Numbers in a row of parameters."""
        return self.num_choices

    @property
    def action_size(self) -> int:
        """K, the numbers in an action."""
        return len(self.sizes)

    def draw(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Noise for ``count`` actions of one copy: [count, K] float64, uniform in [0, 1)."""
        return stream.random((count, len(self.sizes)))

    def sample(self, parameters: np.ndarray, noise: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Actions [N, K] by inversion of the cumulative probabilities."""
        if masks is None and len(self.sizes) == 1:  # the same in two dimensions and without numpy's wrappers: 2 us less
            weights = np.exp(parameters - np.maximum.reduce(parameters, axis=1, keepdims=True))
            cumulative = np.add.accumulate(weights, axis=1)
            below = cumulative[:, :-1] <= noise * cumulative[:, -1:]
            chosen: np.ndarray = np.add.reduce(below, axis=1, dtype=np.int64, keepdims=True)
            return chosen
        table = self._table(parameters, masks)
        weights = np.exp(table - table.max(axis=2, keepdims=True))
        cumulative = weights.cumsum(axis=2)
        totals = cumulative[:, :, -1]
        thresholds = noise * totals
        if masks is not None or not self._is_even:
            # Rounding may lift a threshold to the total, and what follows the last allowed choice adds nothing to it.
            np.minimum(thresholds, np.nextafter(totals.astype(np.float64), 0.0), out=thresholds)
        # The last column is left out for the same reason: there is no choice after it.
        actions: np.ndarray = np.count_nonzero(cumulative[:, :, :-1] <= thresholds[:, :, None], axis=2)
        return actions

    def mode(self, parameters: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """The likeliest action of each row, [N, K]."""
        actions: np.ndarray = self._table(parameters, masks).argmax(axis=2)
        return actions

    def log_prob(self, parameters: np.ndarray, actions: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Log-probability of each row's action, summed over its choices, [N] float32."""
        table = self._table(parameters, masks)
        shifted = table - table.max(axis=2, keepdims=True)
        chosen = np.take_along_axis(shifted, actions[:, :, None], axis=2)[:, :, 0]
        log_probs: np.ndarray = chosen - np.log(np.exp(shifted).sum(axis=2))
        return log_probs[:, 0] if len(self.sizes) == 1 else log_probs.sum(axis=1)

    @cached_property
    def _is_even(self) -> bool:
        return len(set(self.sizes)) == 1

    @cached_property
    def places(self) -> np.ndarray:
        """[K, largest size] int64: where each choice's logits are in a row; num_choices where it has no more."""
        ends = np.cumsum(self.sizes)
        columns = np.arange(max(self.sizes))
        return np.where(columns < np.array(self.sizes)[:, None], (ends - self.sizes)[:, None] + columns, ends[-1])

    def _table(self, parameters: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
        """[N, K, largest size]; FORBIDDEN where a choice is not allowed or does not exist."""
        if masks is not None:
            parameters = np.where(masks, parameters, np.float32(FORBIDDEN))
        if self._is_even:
            return parameters.reshape(len(parameters), len(self.sizes), -1)
        absent = np.full((len(parameters), 1), FORBIDDEN, parameters.dtype)
        table: np.ndarray = np.concatenate([parameters, absent], axis=1)[:, self.places]
        return table


@dataclass(frozen=True)
class DiagonalGaussian:
    """``size`` independent normals; parameters [N, 2 A] are means, then log standard deviations.

    Actions are float32 [N, A] and not bounded. If ``is_squashed``, what counts is their tanh, in (-1, 1): ``log_prob``
    gives its density (change of variables, Haarnoja et al. 2018, arXiv:1801.01290, appendix C, eq. 21).
    """

    size: int
    predicts_log_std: bool = False  #: the deviations depend on the observation; else they are parameters of their own
    is_squashed: bool = False

    @property
    def num_choices(self) -> int:
        """No choices, no masks."""
        return 0

    @property
    def num_outputs(self) -> int:
        """Numbers that the network gives for an observation."""
        return 2 * self.size if self.predicts_log_std else self.size

    @property
    def num_parameters(self) -> int:
        """Numbers in a row of parameters."""
        return 2 * self.size

    @property
    def action_size(self) -> int:
        """A, the numbers in an action."""
        return self.size

    def draw(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Noise for ``count`` actions of one copy: [count, A] float32, standard normal."""
        return stream.standard_normal((count, self.size), np.float32)

    def sample(self, parameters: np.ndarray, noise: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Actions [N, A]."""
        actions: np.ndarray = parameters[:, : self.size] + np.exp(self._log_stds(parameters)) * noise
        return actions

    def mode(self, parameters: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """The means, [N, A]."""
        return parameters[:, : self.size]

    def log_prob(self, parameters: np.ndarray, actions: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Log-density of each row's action, summed over its dimensions, [N] float32."""
        log_stds = self._log_stds(parameters)
        scaled = (actions - parameters[:, : self.size]) * np.exp(-log_stds)
        log_densities = -0.5 * scaled * scaled - log_stds - _LOG_SQRT_2PI
        if self.is_squashed:
            log_densities -= log_tanh_slope(actions)
        log_probs: np.ndarray = log_densities.sum(axis=1)
        return log_probs

    def _log_stds(self, parameters: np.ndarray) -> np.ndarray:
        log_stds = parameters[:, self.size :]
        return log_stds.clip(*LOG_STD_BOUNDS) if self.predicts_log_std else log_stds


@dataclass(frozen=True)
class Product:
    """Choices and real numbers in one action, [N, W] float32."""

    choices: Categorical
    reals: DiagonalGaussian
    is_choice: tuple[bool, ...]  #: [W]: which numbers of an action are choices

    @property
    def num_choices(self) -> int:
        """Logits in a row, and bools in a mask."""
        return self.choices.num_choices

    @property
    def num_outputs(self) -> int:
        """Numbers that the network gives for an observation."""
        return self.choices.num_outputs + self.reals.num_outputs

    @property
    def num_parameters(self) -> int:
        """Numbers in a row of parameters."""
        return self.choices.num_parameters + self.reals.num_parameters

    @property
    def action_size(self) -> int:
        """W, the numbers in an action."""
        return len(self.is_choice)

    def draw(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Noise for ``count`` actions of one copy: [count, K + A] float64, the choices' first."""
        return np.concatenate([self.choices.draw(stream, count), self.reals.draw(stream, count)], axis=1)

    def sample(self, parameters: np.ndarray, noise: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Actions [N, W]."""
        logits, gaussian = self._split(parameters)
        count = self.choices.action_size
        normal = noise[:, count:].astype(np.float32)
        return self._joined(self.choices.sample(logits, noise[:, :count], masks), self.reals.sample(gaussian, normal))

    def mode(self, parameters: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """The likeliest choices and the means, [N, W]."""
        logits, gaussian = self._split(parameters)
        return self._joined(self.choices.mode(logits, masks), self.reals.mode(gaussian))

    def log_prob(self, parameters: np.ndarray, actions: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Log-density of each row's action, [N] float32."""
        logits, gaussian = self._split(parameters)
        chosen = actions[:, self.choice_places].astype(np.int64)
        log_probs: np.ndarray = self.choices.log_prob(logits, chosen, masks)
        log_probs += self.reals.log_prob(gaussian, actions[:, self.real_places])
        return log_probs

    @cached_property
    def choice_places(self) -> np.ndarray:
        """[K] int64: where the choices are in an action."""
        return np.flatnonzero(self.is_choice)

    @cached_property
    def real_places(self) -> np.ndarray:
        """[A] int64: where the real numbers are in an action."""
        return np.flatnonzero(~np.array(self.is_choice))

    def _split(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return parameters[:, : self.num_choices], parameters[:, self.num_choices :]

    def _joined(self, chosen: np.ndarray, reals: np.ndarray) -> np.ndarray:
        actions = np.empty((len(chosen), len(self.is_choice)), np.float32)
        actions[:, self.choice_places] = chosen
        actions[:, self.real_places] = reals
        return actions


Distribution = Categorical | DiagonalGaussian | Product


def log_tanh_slope(actions: np.ndarray) -> np.ndarray:
    """log(1 - tanh(x)^2), in a form that does not round to log 0 for large x."""
    slope: np.ndarray = 2.0 * (math.log(2.0) - actions - np.logaddexp(0.0, -2.0 * actions))
    return slope.astype(actions.dtype, copy=False)

"""Action distributions over rows of parameters, in numpy; their torch twins are in ``torch_distributions.py``.

A policy network gives a row of ``num_outputs`` numbers for each observation; a distribution turns rows of parameters
into actions and log-probabilities. Three of them, and every action space is one: ``Categorical`` (one or several
independent choices: Discrete, MultiDiscrete, MultiBinary), ``DiagonalGaussian`` (real numbers, also squashed by tanh)
and ``Product`` (both, side by side). Parts are independent: log-probabilities and entropies are summed over them.

    a row of parameters    logits of all choices | means | log standard deviations
    a mask                 one bool for each logit, True where the choice is allowed
    an action              [W], one number for each choice or real number, in the order of the action space

Randomness comes in from outside, as uniform numbers, ``num_uniforms`` for each action. ``noise`` turns those of a whole
rollout at once into what ``sample`` needs, so that a step is left with an addition and little else; both are pure. So
what a copy does never depends on which other copies share its batch.

Sampled actions are what is stored and learned from: counted from 0, neither clipped nor squashed. What the environment
gets of them is ``spaces.ActionSpec.for_environment``'s to say. The two must not be mixed up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

#: Logit of a choice that is not allowed. Its probability is 0 exactly, and 0 times this is no NaN, as with -inf.
FORBIDDEN = -1e8

#: Bounds of a log standard deviation that depends on the observation (CleanRL's): float32 keeps a density within them.
LOG_STD_BOUNDS = (-5.0, 2.0)

#: Choices of which the greatest is found by columns. Of 256 rows of 2, 64 and 1,000 that takes 2, 12 and 119 us, and by
#: rows 8, 17 and 26.
_FEW = 64

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

    @property
    def num_uniforms(self) -> int:
        """Uniform numbers that an action is drawn with."""
        return self.num_choices

    def noise(self, uniforms: np.ndarray) -> np.ndarray:
        """Uniform numbers [..., num_uniforms] in (0, 1) -> Gumbel's distribution, float32, one for each logit."""
        gumbel: np.ndarray = -np.log(-np.log(uniforms))
        return gumbel.astype(np.float32)

    def sample(self, parameters: np.ndarray, noise: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Actions [N, K]: the greatest logit when each has noise added (Maddison, Tarlow, Minka 2014, "A* Sampling").

        Two calls of numpy a step, where inverting the cumulative probabilities takes six.
        """
        return self.mode(parameters + noise, masks)

    def mode(self, parameters: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """The likeliest action of each row, [N, K]."""
        actions: np.ndarray
        if masks is None and len(self.sizes) == 1:  # the same in two dimensions: 0.5 us less
            actions = parameters.argmax(axis=1)
            return actions[:, None]
        actions = self._table(parameters, masks).argmax(axis=2)
        return actions

    def log_prob(self, parameters: np.ndarray, actions: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Log-probability of each row's action, summed over its choices, [N] float32."""
        table = self._table(parameters, masks)
        if table.shape[2] <= _FEW:
            # The greatest of each row's few, by columns: a tenth of the time of going through it row by row.
            greatest = np.maximum.reduce(np.ascontiguousarray(table.transpose(2, 0, 1)), axis=0)
        else:
            greatest = table.max(axis=2)
        shifted = table - greatest[:, :, None]
        # As np.take_along_axis has it, without what that does in Python: a third of the time for few rows.
        chosen = shifted[np.arange(len(shifted))[:, None], self._parts, actions]
        log_probs: np.ndarray = chosen - np.log(np.exp(shifted).sum(axis=2))
        return log_probs[:, 0] if len(self.sizes) == 1 else log_probs.sum(axis=1)

    @cached_property
    def _is_even(self) -> bool:
        return len(set(self.sizes)) == 1

    @cached_property
    def _parts(self) -> np.ndarray:
        return np.arange(len(self.sizes))

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

    @property
    def num_uniforms(self) -> int:
        """Uniform numbers that an action is drawn with: a pair gives two normal ones."""
        return self.size + self.size % 2

    def noise(self, uniforms: np.ndarray) -> np.ndarray:
        """Uniform numbers [..., num_uniforms] in (0, 1) -> standard normal [..., A] float32 (Box and Muller 1958)."""
        pairs = self.num_uniforms // 2
        radii = np.sqrt(-2.0 * np.log(uniforms[..., :pairs]))
        angles = (2.0 * math.pi) * uniforms[..., pairs:]
        normal = np.concatenate([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)
        return normal[..., : self.size].astype(np.float32)

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

    @property
    def num_uniforms(self) -> int:
        """Uniform numbers that an action is drawn with, the choices' first."""
        return self.choices.num_uniforms + self.reals.num_uniforms

    def noise(self, uniforms: np.ndarray) -> np.ndarray:
        """Uniform numbers [..., num_uniforms] in (0, 1) -> the choices' noise and the real numbers', float32."""
        count = self.choices.num_uniforms
        return np.concatenate(
            [self.choices.noise(uniforms[..., :count]), self.reals.noise(uniforms[..., count:])], axis=-1
        )

    def sample(self, parameters: np.ndarray, noise: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """Actions [N, W]."""
        logits, gaussian = self._split(parameters)
        gumbel, normal = self._split(noise)
        return self._joined(self.choices.sample(logits, gumbel, masks), self.reals.sample(gaussian, normal))

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


def draw(distribution: Distribution, stream: np.random.Generator, count: int) -> np.ndarray:
    """Noise for ``count`` actions, from a generator: for those who act outside a run, which has ``streams``."""
    # Neither 0 nor 1, as a logarithm follows.
    return distribution.noise(stream.uniform(2.0**-53, 1.0, (count, distribution.num_uniforms)))


def log_tanh_slope(actions: np.ndarray) -> np.ndarray:
    """log(1 - tanh(x)^2), in a form that does not round to log 0 for large x; the same on both sides of 0."""
    distances = np.abs(actions)
    # Not np.logaddexp, which takes twenty times as long.
    slope: np.ndarray = 2.0 * (math.log(2.0) - distances - np.log1p(np.exp(-2.0 * distances)))
    return slope


@cache
def hermite_rule() -> tuple[np.ndarray, np.ndarray]:
    """Points and shares [16] float32 of a sum that stands for a mean over a standard normal: Gauss-Hermite quadrature.

    For the entropy of a squashed normal it is within 0.00002 of the integral up to the deviation 1, 0.004 up to 2, 0.03
    up to 3.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(16)
    return points.astype(np.float32), (weights / weights.sum()).astype(np.float32)

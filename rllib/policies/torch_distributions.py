"""The distributions of ``distributions.py`` in torch: what the loss needs of them, with gradients.

The same rows of parameters, the same masks, the same numbers to float32's precision. What a distribution needs besides
its parameters and never changes is in its tables, made once and kept where the nets are: made anew in each step, they
would let the driver wait for a GPU. Torch is imported when the first function is called: rollout workers load this
module's neighbours, and need none of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .distributions import FORBIDDEN, LOG_STD_BOUNDS, Categorical, DiagonalGaussian, Distribution, hermite_rule

if TYPE_CHECKING:
    import torch


def tables(distribution: Distribution) -> dict[str, torch.Tensor]:
    """What ``evaluate`` looks up, on the CPU; nothing for one choice, or for normals that are not squashed."""
    import torch

    if isinstance(distribution, Categorical):
        return {} if len(distribution.sizes) == 1 else {"places": torch.from_numpy(distribution.places)}
    if isinstance(distribution, DiagonalGaussian):
        if not distribution.is_squashed:
            return {}
        points, shares = hermite_rule()
        return {"nodes": torch.tensor(points), "shares": torch.tensor(shares)}
    return {
        "choice_places": torch.from_numpy(distribution.choice_places),
        "real_places": torch.from_numpy(distribution.real_places),
        **tables(distribution.choices),
        **tables(distribution.reals),
    }


def evaluate(
    distribution: Distribution,
    parameters: torch.Tensor,
    actions: torch.Tensor,
    masks: torch.Tensor | None,
    known: Mapping[str, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """How likely actions were, and how open the choice.

    Args:
      distribution: Of the actions.
      parameters: [N, P] float32, rows as ``distributions.py`` tells.
      actions: [N, W] int64, or float32 where there are real numbers among them; as sampled.
      masks: [N, num_choices] bool, True where allowed; None allows all.
      known: The distribution's ``tables``, where the parameters are.

    Returns:
      log_probs [N], entropies [N]; the entropy of a squashed normal is that of its tanh.
    """
    if isinstance(distribution, Categorical):
        return _evaluate_choices(distribution, parameters, actions, masks, known)
    if isinstance(distribution, DiagonalGaussian):
        return _evaluate_reals(distribution, parameters, actions, known)
    logits, gaussian = parameters[:, : distribution.num_choices], parameters[:, distribution.num_choices :]
    choices = actions[:, known["choice_places"]].long()
    chosen = _evaluate_choices(distribution.choices, logits, choices, masks, known)
    drawn = _evaluate_reals(distribution.reals, gaussian, actions[:, known["real_places"]], known)
    return chosen[0] + drawn[0], chosen[1] + drawn[1]


def _evaluate_choices(
    distribution: Categorical,
    logits: torch.Tensor,
    actions: torch.Tensor,
    masks: torch.Tensor | None,
    known: Mapping[str, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    if masks is not None:
        logits = torch.where(masks, logits, FORBIDDEN)
    if len(distribution.sizes) == 1:
        log_probabilities = logits.log_softmax(1)
        chosen = log_probabilities.gather(1, actions).squeeze(1)
        return chosen, -(log_probabilities.exp() * log_probabilities).sum(1)
    absent = torch.nn.functional.pad(logits, (0, 1), value=FORBIDDEN)
    table = absent[:, known["places"]].log_softmax(2)
    chosen = table.gather(2, actions.unsqueeze(2)).squeeze(2).sum(1)
    return chosen, -(table.exp() * table).sum((1, 2))


def _evaluate_reals(
    distribution: DiagonalGaussian, parameters: torch.Tensor, actions: torch.Tensor, known: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    means, log_stds = parameters[:, : distribution.size], parameters[:, distribution.size :]
    if distribution.predicts_log_std:
        log_stds = log_stds.clamp(*LOG_STD_BOUNDS)
    scaled = (actions - means) * (-log_stds).exp()
    constant = 0.5 * math.log(2.0 * math.pi) * distribution.size
    log_probs = (-0.5 * scaled.square() - log_stds).sum(1) - constant
    entropies = log_stds.sum(1) + 0.5 * math.log(2.0 * math.pi * math.e) * distribution.size
    if distribution.is_squashed:
        log_probs = log_probs - _log_tanh_slope(actions).sum(1)
        entropies = entropies + _expected_log_slope(means, log_stds.exp(), known["nodes"], known["shares"]).sum(1)
    return log_probs, entropies


def _expected_log_slope(
    means: torch.Tensor, stds: torch.Tensor, nodes: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """E[log(1 - tanh(x)^2)] of normals [N, A], by Gauss-Hermite quadrature: what squashing takes from the entropy.

    A sum and not a sample: it needs no random numbers and its gradient has no noise.
    """
    return (_log_tanh_slope(means.unsqueeze(2) + stds.unsqueeze(2) * nodes) * shares).sum(2)


def _log_tanh_slope(actions: torch.Tensor) -> torch.Tensor:
    import torch

    return 2.0 * (math.log(2.0) - actions - torch.nn.functional.softplus(-2.0 * actions))

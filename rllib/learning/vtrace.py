"""V-trace: what a state is worth to the policy that learns, from steps that older policies took.

Espeholt et al. 2018, "IMPALA" (arXiv:1802.01561): eq. 1 for the targets of the critic, section 4.2 for the advantages
of the policy gradient. Each step's temporal difference is weighted by how much likelier its action has become since,
cut at ``rho_bar``, and handed down to earlier steps by such weights cut at ``c_bar``. With the policy that acted all
weights are 1 and this is ``advantages.gae``, for any ``lam``.

The rule of episode ends is that of ``envs/vector.py``, and as in ``advantages.py`` no row is special: each carries the
value of its own true successor. Called by the algorithms on the driver, once for each batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .advantages import ahead


class VTrace(NamedTuple):
    """What to learn from a rollout of another policy."""

    targets: np.ndarray  #: [T, B] v_s, for the critic
    advantages: np.ndarray  #: [T, B] rho_s (q_s - V(x_s)), what multiplies the gradient of log pi(a_s | x_s)
    rhos: np.ndarray  #: [T, B] truncated weights of the steps, in [0, rho_bar]


def vtrace(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    log_ratios: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    valid: np.ndarray | None = None,
    *,
    gamma: float,
    lam: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> VTrace:
    """V-trace targets and advantages.

    With delta_t = rho_t (r_t + gamma V(x_t+1) - V(x_t)), rho_t = min(rho_bar, pi/mu), c_t = lam min(c_bar, pi/mu):

        v_s = V(x_s) + sum over t >= s of gamma^(t-s) c_s .. c_t-1 delta_t                                   (eq. 1)
        q_s = r_s + gamma (lam v_s+1 + (1 - lam) V(x_s+1))                                                  (sec. 4.2)

    The paper has lam in c_t only (remark 2) and q_s with v_s+1 alone, which is lam = 1. Mixed like this the advantages
    of the policy that acted are those of GAE for any lam.

    Args:
      rewards:     [T, B] r_t.
      values:      [T, B] V(x_t), as the critic sees it now.
      next_values: [T, B] V of the true successor of x_t; where an episode ended, of its last observation and not of
                   the reset that followed. Ignored where terminated.
      log_ratios:  [T, B] log pi(a_t | x_t) - log mu(a_t | x_t) of the policy that learns and the one that acted.
      terminated:  [T, B] bool; the successor is worth 0.
      truncated:   [T, B] bool; the successor has its value, but is not in the next row.
      valid:       [T, B] bool; False: no transition to learn from. Its advantage is 0 and its target its value, so the
                   row before it is cut like a truncated one. None: all.
      gamma:       discount, in [0, 1].
      lam:         decay of the trace, in [0, 1].
      rho_bar:     cut of the weights of steps: what policy the targets are the values of; infinite for pi.
      c_bar:       cut of the weights of the trace, at most rho_bar: how fast they come there.

    Returns:
      All three in the dtype of the inputs.
    """
    with np.errstate(over="ignore"):  # infinite ratios are cut like all others
        ratios = np.exp(log_ratios)
    rhos = np.minimum(ratios, rho_bar).astype(ratios.dtype, copy=False)
    # A successor that is in the next row: what was found out there belongs to this row's future.
    goes_on = ~(terminated | truncated)
    deltas = rewards + np.where(terminated, 0.0, gamma * next_values) - values
    decay = np.where(goes_on, gamma * lam, 0.0).astype(deltas.dtype)
    if valid is not None:
        deltas, decay = (np.where(valid, rows, np.zeros_like(rows)) for rows in (deltas, decay))
        rhos = np.where(valid, rhos, np.zeros_like(rhos))
        ratios = np.where(valid, ratios, np.zeros_like(ratios))
    weighted = rhos * deltas
    trace = decay * np.minimum(ratios, c_bar).astype(ratios.dtype, copy=False)
    future = ahead(weighted, trace)  # v_s+1 - V(x_s+1)
    advantages = rhos * (deltas + decay * future)
    return VTrace(weighted + trace * future + values, advantages, rhos)

"""One part of a parameter server: a slice of the flat weights, the Adam that improves it, and who has pushed what.
A table: no actors, no clock, no files; ``parameter_server.py`` is the actor around it.

N learners count their steps 0, 1, 2, ... and push one gradient for each. The *clock* of a learner is the number of its
pushes that are in; the *version* of the weights is how many times they were improved. What a push does:

    bulk            lies *pending* until all N learners' pushes of that step are there; their mean by rows, summed in
                    the order of the learners, is applied as one gradient: its bits do not depend on who came first
    bounded, tau    applied as it comes; a learner may start its step c when the slowest clock is at c - tau, at least
                    (stale synchronous parallel: Ho et al. 2013, section 2; its s is tau)
    asynchronous    applied as it comes (Dean et al. 2012, Downpour SGD)

With ``awaits_scale`` a complete step of bulk waits for a ``Commit``: gradients are clipped by the norm of the whole
vector, of which a shard knows only its part, ``squared_norm``. So a step of bulk goes

    collecting --push of the last learner--> complete --commit (at once without awaits_scale)--> applied

Invariants. A push is known by (learner, step); a second one of that key changes nothing, so it may be sent again by
whoever did not hear that it came. Pushes of one learner come in order: step = its clock. Clocks never differ by more
than 1 in bulk, and never by more than tau + 1 when bounded. State is a function of the state before and the entry
(``Push`` or ``Commit``): entries since a snapshot, in their order, lead from it to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..learning.adam import Adam

#: When pushes are applied.
Mode = Literal["bulk", "bounded", "asynchronous"]


@dataclass(frozen=True)
class Push:
    """A learner's gradient of one step."""

    learner: int
    step: int  #: how many the learner has pushed before
    rows: int  #: of the minibatch that it is of; in bulk some may have none that count, but not all
    learning_rate: float  #: of Adam, for this step; in bulk that of learner 0 counts
    gradient: np.ndarray  #: [P] float32, of this shard's slice; a mean over the rows


@dataclass(frozen=True)
class Commit:
    """Apply the complete step of bulk."""

    step: int
    scale: float | None  #: what to multiply its gradient by; None: give the step up, the weights stay


Entry = Push | Commit


@dataclass(frozen=True)
class ShardSettings:
    """What all shards of a server have in common.

    Raises:
      ValueError: a number is out of range, or two do not go together.
    """

    learners: int  #: N
    mode: Mode = "bulk"
    staleness: int = 0  #: tau, for bounded
    epsilon: float = 1e-5  #: of Adam
    awaits_scale: bool = False  #: for bulk: a complete step waits for ``Commit``

    def __post_init__(self) -> None:
        if self.learners < 1:
            raise ValueError(f"a parameter server has at least 1 learner, not {self.learners}")
        if self.mode not in ("bulk", "bounded", "asynchronous"):
            raise ValueError(f"mode is bulk, bounded or asynchronous, not {self.mode!r}")
        if self.staleness < 0 or (self.staleness and self.mode != "bounded"):
            raise ValueError(f"staleness is at least 0, and 0 where mode is not bounded, not {self.staleness}")
        if self.awaits_scale and self.mode != "bulk":
            raise ValueError(f"steps wait for a scale in mode bulk only, not in {self.mode}")


class Shard:
    """A slice of the weights [P] and its state.

    Args:
      weights: [P] float32, to begin with; copied.
      settings: Of the server.

    Attributes:
      version: How many times the weights were improved, or given up.
      clocks: [N] pushes that are in, by learner.
      weights: [P] float32, those of ``version``. Not to be changed from outside.
    """

    def __init__(self, weights: np.ndarray, settings: ShardSettings) -> None:
        self.settings = settings
        self.version = 0
        self.clocks = [0] * settings.learners
        self.weights = weights.astype(np.float32)
        self._adam = Adam(len(weights), learning_rate=0.0, epsilon=settings.epsilon)
        self._pending: dict[int, Push] = {}
        self._sum: np.ndarray | None = None  # [P] the mean by rows of a complete step that waits for its scale

    @property
    def squared_norm(self) -> float | None:
        """Of this slice of the complete step's gradient, while it waits for its scale; None: no step does."""
        return None if self._sum is None else float(np.square(self._sum, dtype=np.float64).sum())

    @property
    def has_pending(self) -> bool:
        """Whether pushes are in that have not been applied."""
        return bool(self._pending)

    def is_new(self, entry: Entry) -> bool:
        """Whether ``take`` would change anything: False for what is in already.

        Raises:
          ValueError: it cannot be taken now, and why.
        """
        return self._is_new_push(entry) if isinstance(entry, Push) else self._is_new_commit(entry)

    def take(self, entry: Entry) -> bool:
        """Take a push or a commit; whether it was new.

        Raises:
          ValueError: as ``is_new``; nothing is changed.
        """
        if not self.is_new(entry):
            return False
        if isinstance(entry, Commit):
            self._close_step(entry.step, entry.scale)
            return True
        self.clocks[entry.learner] += 1
        if self.settings.mode != "bulk":
            self._apply(entry.gradient.copy(), entry.learning_rate)
            return True
        self._pending[entry.learner] = entry
        if len(self._pending) == self.settings.learners:
            self._sum = _mean_by_rows([self._pending[learner] for learner in range(self.settings.learners)])
            if not self.settings.awaits_scale:
                self._close_step(entry.step, 1.0)
        return True

    def may_start(self, step: int) -> bool:
        """Whether the weights as they are will do for a learner's step with this number."""
        if self.settings.mode == "bulk":
            return self.version >= step
        return self.settings.mode == "asynchronous" or min(self.clocks) >= step - self.settings.staleness

    def waits_for(self, step: int) -> str:
        """Why a step may not start, in words."""
        slowest = min(range(len(self.clocks)), key=self.clocks.__getitem__)
        if self.settings.mode == "bulk" and self._sum is not None:
            return f"step {self.version} is complete and has not been committed"
        return f"learner {slowest} has pushed {self.clocks[slowest]} steps, and step {step} may not start before more"

    def arrays(self) -> dict[str, np.ndarray]:
        """All that there is to remember while nothing is pending, copied.

        Raises:
          RuntimeError: pushes are pending.
        """
        if self._pending:
            raise RuntimeError(f"pushes of learners {sorted(self._pending)} are pending; the step is not over")
        return {
            "weights": self.weights.copy(),
            "exp_avg": self._adam.exp_avg.copy(),
            "exp_avg_sq": self._adam.exp_avg_sq.copy(),
            "steps": np.array(self._adam.steps, np.int64),
            "version": np.array(self.version, np.int64),
            "clocks": np.array(self.clocks, np.int64),
        }

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what ``arrays`` gave, bit for bit; what is pending is given up.

        Raises:
          ValueError: it is of a slice of another length, or of another number of learners.
        """
        for name, mine in (("weights", self.weights), ("clocks", np.array(self.clocks))):
            if arrays[name].shape != mine.shape:
                raise ValueError(f"the {name} of this shard are {mine.shape}, not {arrays[name].shape}")
        self.weights[:] = arrays["weights"]
        self._adam.exp_avg[:] = arrays["exp_avg"]
        self._adam.exp_avg_sq[:] = arrays["exp_avg_sq"]
        self._adam.steps = int(arrays["steps"])
        self.version = int(arrays["version"])
        self.clocks = [int(clock) for clock in arrays["clocks"]]
        self._pending.clear()
        self._sum = None

    def _is_new_push(self, push: Push) -> bool:
        settings = self.settings
        if not 0 <= push.learner < settings.learners:
            raise ValueError(f"there are learners 0 to {settings.learners - 1}, no learner {push.learner}")
        if push.gradient.shape != self.weights.shape or push.rows < 0:
            raise ValueError(
                f"learner {push.learner} pushed a gradient {push.gradient.shape} of {push.rows} rows; this shard takes "
                f"{self.weights.shape} of 0 or more"
            )
        clock = self.clocks[push.learner]
        if push.step < clock:
            return False
        if push.step > clock:
            raise ValueError(f"learner {push.learner} pushed step {push.step}; its next is step {clock}")
        if not self.may_start(push.step):
            raise ValueError(f"learner {push.learner} pushed step {push.step} too early: {self.waits_for(push.step)}")
        return True

    def _is_new_commit(self, commit: Commit) -> bool:
        if not self.settings.awaits_scale:
            raise ValueError("this shard applies complete steps by itself; there is nothing to commit")
        if commit.step < self.version:
            return False
        if commit.step > self.version:
            raise ValueError(f"step {commit.step} cannot be committed; the next is step {self.version}")
        if self._sum is None and commit.scale is not None:
            missing = sorted(set(range(self.settings.learners)) - self._pending.keys())
            raise ValueError(f"step {commit.step} cannot be committed: pushes of learners {missing} are missing")
        return True

    def _close_step(self, step: int, scale: float | None) -> None:
        if scale is None:
            self.version += 1
        else:
            assert self._sum is not None
            gradient = self._sum if scale == 1.0 else self._sum * np.float32(scale)
            self._apply(gradient, self._pending[0].learning_rate)
        self.clocks = [step + 1] * self.settings.learners
        self._pending.clear()
        self._sum = None

    def _apply(self, gradient: np.ndarray, learning_rate: float) -> None:
        """One step of Adam; the gradient [P] is used up."""
        self._adam.learning_rate = learning_rate
        self._adam.step(self.weights, gradient)
        self.version += 1


def _mean_by_rows(pushes: Sequence[Push]) -> np.ndarray:
    """The gradient [P] of the mean over all rows, from those of parts of them; summed in the order given."""
    total = math.fsum(push.rows for push in pushes)
    mean = np.zeros_like(pushes[0].gradient)
    for push in pushes:
        mean += push.gradient * np.float32(push.rows / total)
    return mean

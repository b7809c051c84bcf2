"""From a batch to minibatches: every valid row once in an epoch, in a new order; rows that are not valid never.

Without recurrence rows are shuffled one by one. With it the rows of an environment copy stay together, in sequences of
L steps (Huang et al. 2022: by environment, never by time), each with the recurrent state that acting had before its
first row. Within a sequence an episode may end; it is cut there into pieces, the later ones starting from zeros. So a
piece has no reset inside, and the training forward needs neither flags nor padding: it takes the pieces of a minibatch
as torch's packed sequence does, first the first rows of all pieces, longest piece first, then their second rows, ...

    sequence (one copy, L = 6)   a a a|b b b     pieces aaa (from the stored state), bbb (from zeros)
                                 c c c c c c     piece cccccc (from the stored state)
    packed rows                  c a b  c a b  c a b  c  c  c       batch_sizes 3 3 3 1 1 1

All columns of a minibatch are in that order, so the loss sees rows and knows of none of this. Initial states are those
of the weights that acted: they are not brought up to date while the epochs last, and no steps are spent on warming up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..policies.devices import moved
from ..policies.modules import OBSERVATIONS
from ..rollouts.batch import Batch
from .learner import Columns


def samples(batch: Batch, observations: Mapping[str, np.ndarray], **more: np.ndarray) -> dict[str, np.ndarray]:
    """The valid rows of a batch, as columns [N, ...] for the learner's device.

    Args:
      batch: The rollout.
      observations: Its observations [T, B, *shape], normalised if they are to be.
      more: Further columns [T, B], advantages and returns for instance.
    """
    columns = {f"{OBSERVATIONS}{name}": column for name, column in observations.items()}
    columns |= {"actions": batch.actions, "log_probs": batch.log_probs, "values": batch.values, **more}
    if batch.masks is not None:
        columns["masks"] = batch.masks
    return {name: batch.rows(column) for name, column in columns.items()}


def minibatches(
    columns: Columns, size: int, rng: np.random.Generator, sequences: Sequences | None = None
) -> Iterator[Columns]:
    """One epoch: every row exactly once, in a new order (detail 6).

    Args:
      columns: Of ``samples``, [N, ...] each, as a learner has them: arrays, or tensors all on one device.
      size: Rows of a minibatch. With sequences as many of them as make up so many rows, at least one.
      rng: What to shuffle with.
      sequences: Of the same batch, for a recurrent policy.

    Yields:
      The columns of a minibatch; with sequences also states [P, S] of its pieces and batch_sizes [longest] int64, on
      the CPU: how many pieces have so many rows.
    """
    first = next(iter(columns.values()))
    if sequences is not None:
        import torch

        for rows, states, batch_sizes in sequences.shuffled(size, rng):
            minibatch = _taken(columns, rows)
            minibatch["states"] = moved(torch.from_numpy(states), first.device)
            yield {**minibatch, "batch_sizes": torch.from_numpy(batch_sizes)}
        return
    shuffled = _taken(columns, rng.permutation(len(first)))
    for start in range(0, len(first), size):
        yield {name: column[start : start + size] for name, column in shuffled.items()}


def _taken(columns: Columns, rows: np.ndarray) -> Columns:
    first = next(iter(columns.values()))
    if isinstance(first, np.ndarray):
        return {name: column.take(rows, axis=0) for name, column in columns.items()}
    import torch

    order = moved(torch.from_numpy(rows), first.device)
    return {name: column[order] for name, column in columns.items()}


@dataclass(frozen=True)
class Sequences:
    """The pieces of a batch's sequences. R valid rows, P pieces; rows are numbered as in ``samples``."""

    length: int  #: L, the most steps of a sequence
    count: int  #: how many sequences there are
    order: np.ndarray  #: [R] int64: rows by copy, then by step
    piece: np.ndarray  #: [R] int64: which piece each of ``order`` is in, rising
    sequence: np.ndarray  #: [P] int64: which sequence each piece is in, rising
    lengths: np.ndarray  #: [P] int64: rows of each piece
    states: np.ndarray  #: [P, S] float32: recurrent state before its first row

    @classmethod
    def of(cls, batch: Batch, length: int) -> Sequences:
        """Cut a recurrent policy's batch into sequences.

        Args:
          batch: With ``states`` at every ``length``-th row.
          length: L; the last sequences are shorter where T is no multiple of it.
        """
        assert batch.states is not None
        num_steps, num_envs = batch.valid.shape
        numbers = np.cumsum(batch.valid.reshape(-1)).reshape(batch.valid.shape) - 1
        first = batch.starts.copy()
        first[::length] = True
        # From here on by copy, then by step, [B * T]. Nothing valid follows an invalid row in its piece.
        valid = batch.valid.T.reshape(-1)
        piece = np.cumsum(first.T.reshape(-1)) - 1
        starts_at = np.flatnonzero(first.T.reshape(-1))
        copy, step = starts_at // num_steps, starts_at % num_steps
        states = np.where(batch.starts[step, copy, None], np.float32(0.0), batch.states[step // length, copy])
        lengths = np.bincount(piece[valid], minlength=len(starts_at))
        per_copy = -(-num_steps // length)
        filled = lengths > 0
        return cls(
            length=min(length, num_steps),
            count=per_copy * num_envs,
            order=numbers.T.reshape(-1)[valid],
            piece=(np.cumsum(filled) - 1)[piece[valid]],
            sequence=(copy * per_copy + step // length)[filled],
            lengths=lengths[filled],
            states=states[filled],
        )

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Minibatches of whole sequences in a new order: rows, states and batch sizes, see ``minibatches``."""
        together = max(1, size // self.length)
        order = rng.permutation(self.count)
        for start in range(0, self.count, together):
            pieces = np.flatnonzero(np.isin(self.sequence, order[start : start + together]))
            if len(pieces):
                yield self.packed(pieces)

    def packed(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, states and batch sizes of some pieces, in packed order.

        Args:
          pieces: [K] int64, rising.

        Returns:
          rows [n] int64, states [K, S], batch_sizes [longest] int64.
        """
        longest_first = pieces[np.argsort(-self.lengths[pieces], kind="stable")]
        begins = (np.cumsum(self.lengths) - self.lengths)[longest_first]
        lengths = self.lengths[longest_first]
        steps = np.arange(lengths[0])[:, None]
        has_row = steps < lengths
        rows = self.order[(begins + steps)[has_row]]
        return rows, self.states[longest_first], has_row.sum(axis=1)

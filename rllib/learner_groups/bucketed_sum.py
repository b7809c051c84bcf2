"""A gradient that is summed up over the processes of a group while it is still being computed: ``BucketedSum``.

A backward pass finds derivatives in the reverse order of the layers, so a flat gradient [P] comes to be from its end.
As soon as a bucket of it is there, its sum starts, in threads of gloo's, beside the rest of the backward pass (Li et
al. 2020, "PyTorch Distributed", 3.2.3):

    gradient   |  front  |  bucket 2  |  bucket 1  |  bucket 0  |
                         <-- final_from(i): what is behind i will not change any more
               finish(): what is left, the front and the metrics as one; then all are awaited

Buckets are slices of one length, counted from the end, but for the last of them, which is what is left up to a short
front: which they are, and in what order their sums start, follows from P alone, for processes whose sums start in
different orders would wait for ever. The front travels with the metrics, which are known last, in a copy. Each number
is the sum of the same numbers, whatever the buckets: for two processes bit for bit, for more to the order in which gloo
adds them, which depends on the place in the bucket.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Numbers of the front, at most; few, for they are copied: 64 KiB take some 10 us.
_FRONT = 1 << 14


class SumFailedError(RuntimeError):
    """A sum did not come about: another replica died, left, or did not come in time. The weights are as they were."""


class BucketedSum:
    """One sum, over all processes of torch.distributed's default group; each of them makes one, with as many numbers.

    Args:
      share: What this process's numbers are multiplied by beforehand.
      bucket_length: Numbers in a bucket, at least 1.
    """

    def __init__(self, share: float, bucket_length: int) -> None:
        self._share = np.float32(share)
        self._bucket_length = bucket_length
        self._front = min(_FRONT, bucket_length)
        self._under_way: list[Any] = []
        self._failure: RuntimeError | None = None
        self._begin: int | None = None  # of what has been set going; None: nothing

    def final_from(self, gradient: np.ndarray, index: int) -> None:
        """A part of the gradient will not change any more: the buckets in it are multiplied and summed up, in place.

        Args:
          gradient: [P] float32; the same each time.
          index: Where that part begins; it reaches to the end.
        """
        end = len(gradient) if self._begin is None else self._begin
        while end > self._front and (begin := max(end - self._bucket_length, self._front)) >= index:
            self._start(gradient[begin:end])
            end = begin
        self._begin = end

    def finish(self, gradient: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Sum up what is left, together with some other numbers, and wait for all. The gradient holds the sum then.

        Args:
          gradient: [P] float32, all of it final.
          others: [M] float32.

        Returns:
          The sum of these others.

        Raises:
          SumFailedError: a process of the group is not there any more, or did not come in time.
        """
        self.final_from(gradient, 0)
        front = gradient[: self._begin]
        joined = np.concatenate((front, others))
        self._start(joined)
        for work in self._under_way:
            self._heed(work.wait)
        if self._failure is not None:
            raise SumFailedError(str(self._failure)) from self._failure
        front[:] = joined[: len(front)]
        return joined[len(front) :]

    def _start(self, numbers: np.ndarray) -> None:
        import torch
        from torch import distributed

        numbers *= self._share
        self._heed(lambda: self._under_way.append(distributed.all_reduce(torch.from_numpy(numbers), async_op=True)))

    def _heed(self, act: Any) -> None:
        """Note how it fails, the first time: amid a backward pass it must not look like a fault of the loss."""
        if self._failure is None:
            try:
                act()
            except RuntimeError as error:
                self._failure = error

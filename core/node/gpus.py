"""Which GPUs somebody has: ids, each with what is free of it. Pure.

Whole GPUs are taken in the order of their ids. A fraction is taken of one GPU, the fullest that still has room, so that
others stay whole as long as possible. An amount can be free in sum and yet not to be had: two halves are not a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..resources import SCALE


class GpuPool:
    """Free parts (1/10_000) by id."""

    def __init__(self, free: Mapping[str, int]) -> None:
        self._free = dict(free)

    @classmethod
    def of_whole(cls, gpus: Iterable[str]) -> GpuPool:
        return cls(dict.fromkeys(gpus, SCALE))

    @property
    def free(self) -> dict[str, int]:
        return dict(self._free)

    def take(self, parts: int) -> dict[str, int] | None:
        """Parts by id that come to `parts` together; None if they are not to be had, and nothing has changed."""
        if parts < SCALE:
            fitting = [gpu for gpu, free in self._free.items() if free >= parts]
            chosen = [min(fitting, key=self._free.__getitem__)] if fitting and parts else []
            share = parts
        else:
            chosen = [gpu for gpu, free in self._free.items() if free >= SCALE][: parts // SCALE]
            share = SCALE
        if share * len(chosen) < parts:
            return None
        for gpu in chosen:
            self._free[gpu] -= share
        return dict.fromkeys(chosen, share)

    def give_back(self, taken: Mapping[str, int]) -> None:
        for gpu, parts in taken.items():
            self._free[gpu] += parts

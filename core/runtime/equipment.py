"""What work holds while it runs: resources, concrete GPUs, the placement group it is in.

The owner of a lease (or the head, of an actor) tells the worker by `Equip`, before the first task. What a process may
use of the GPUs is said to CUDA by an environment variable, which CUDA reads once: so it is set while work with GPUs
runs here, and is as the user has left it at all other times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..resources import SCALE
from ..scheduling import bundles
from ..scheduling.machine import VISIBLE_DEVICES

#: What the process has found when it began.
_VISIBLE_BEFORE = os.environ.get(VISIBLE_DEVICES)


@dataclass(frozen=True, slots=True)
class Equipment:
    """shape: in 1/10_000, perhaps of a placement group's resources. gpus: ids. captures: what is submitted runs in the
    same group, unless told otherwise.
    """

    shape: Mapping[str, int] = field(default_factory=dict)
    gpus: Sequence[str] = ()
    captures: bool = False

    @property
    def group(self) -> bytes:
        """The placement group; empty: none."""
        return bytes.fromhex(bundles.group_of(self.shape))

    def resources(self) -> dict[str, float]:
        """In units, under their plain names."""
        return {name: amount / SCALE for name, amount in bundles.outside(self.shape).items() if amount}


#: Of a driver.
BARE = Equipment()


def show_gpus(gpus: Sequence[str]) -> None:
    """Let CUDA see these GPUs; with none, what the process was given when it began.

    Two variables of Ray change that: with ``RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES`` it is never touched, with
    ``RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO`` work without GPUs sees none.
    """
    if _is_on("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"):
        return
    if gpus or _is_on("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ[VISIBLE_DEVICES] = ",".join(gpus)
    elif _VISIBLE_BEFORE is not None:
        os.environ[VISIBLE_DEVICES] = _VISIBLE_BEFORE
    else:
        os.environ.pop(VISIBLE_DEVICES, None)


@contextmanager
def visible(gpus: Sequence[str]) -> Iterator[None]:
    """`show_gpus` while work runs in a process that runs other work too; afterwards all is as before."""
    before = os.environ.get(VISIBLE_DEVICES)
    if _is_on("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"):
        gpus = ()
    if gpus:
        os.environ[VISIBLE_DEVICES] = ",".join(gpus)
    try:
        yield
    finally:
        if gpus and before is None:
            os.environ.pop(VISIBLE_DEVICES, None)
        elif gpus and before is not None:
            os.environ[VISIBLE_DEVICES] = before


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")

"""How many threads numpy's matrix products may use in this process.

A rollout worker has one CPU, and its products are small: a second thread gains nothing and makes the workers of a
machine wait for each other. The runtime says so in OMP_NUM_THREADS, which OpenBLAS reads when numpy is imported; in a
worker that is over by then. So it is told again, by the call of its own that every build has under one of these names.
The learner in numpy has one thread, too: results must not change with the number of cores.
Where numpy has another library than the OpenBLAS of its wheels, nothing is changed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

#: Of the builds in numpy's wheels: 2.x, 1.26 with and without 64-bit integers.
_SET = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_")
_GET = tuple(name.replace("_set_", "_get_") for name in _SET)


def limit_matrix_threads(count: int) -> None:
    """Let numpy use so many threads for a matrix product, from now on."""
    for library in _libraries():
        for name in _SET:
            if hasattr(library, name):
                getattr(library, name)(ctypes.c_int(count))


def matrix_threads() -> list[int]:
    """How many it uses, by library; [] if its library is not known here."""
    return [int(getattr(library, name)()) for library in _libraries() for name in _GET if hasattr(library, name)]


@contextmanager
def matrix_threads_limited(count: int) -> Iterator[None]:
    """So many while this lasts, and then as many as before."""
    before = matrix_threads()
    limit_matrix_threads(count)
    try:
        yield
    finally:
        if before:
            limit_matrix_threads(max(before))


def _libraries() -> Iterator[ctypes.CDLL]:
    """The OpenBLAS that came with numpy, which has loaded it already."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):  # Linux and Windows; macOS
        for path in sorted(folder.glob("*openblas*")):
            yield ctypes.CDLL(str(path))

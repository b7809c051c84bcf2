"""Ray as it is installed here: found, and of a version that the engine knows; else one line that says what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import EngineUnavailableError
from ...ray_compat import ray_names

#: Versions that the engine works with, as setup.cfg has them: from the first on, below the second. Before 2.56 drivers
#: are not told the labels of their node.
FIRST, END = (2, 56), (3,)
RANGE = "ray>=2.56,<3"
#: What Ray reads when it is imported: seconds that it gives a head to answer the first question; 30 by itself.
_FIRST_ANSWER = ("RAY_py_gcs_connect_timeout_s", "5")


def load() -> Any:
    """Import Ray.

    Raises:
      EngineUnavailableError: it is not there, cannot be imported, is of another version, or shoal stands in its place.
    """
    if ray_names.stands_for_ray():
        raise EngineUnavailableError(
            "engine='ray' needs Ray itself, and in this process `import ray` finds shoal (run-as-ray, or "
            "shoal.as_ray.install()): run the program without that"
        )
    missing = "engine='ray' needs Ray, which is not installed here: pip install 'shoal[ray]'"
    try:
        with set_for_a_while(*_FIRST_ANSWER):
            import ray
    except ModuleNotFoundError as error:
        if error.name == "ray":
            raise EngineUnavailableError(missing) from None
        raise EngineUnavailableError(f"Ray is installed, but {error}: pip install '{RANGE}' again") from error
    except ImportError as error:
        raise EngineUnavailableError(f"Ray is installed and cannot be imported: {error}") from error
    if ray.__file__ is None:  # a folder of that name lies in the path, as in /tmp, where Ray itself makes one
        raise EngineUnavailableError(missing)
    check_version(ray.__version__)
    return ray


def check_version(version: str) -> None:
    """
    Raises:
      EngineUnavailableError: it is not one of those that the engine knows.
    """
    parts = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not FIRST <= parts < END:
        raise EngineUnavailableError(
            f"Ray {version} is installed; engine='ray' works with {RANGE}: pip install '{RANGE}'"
        )


@contextmanager
def set_for_a_while(name: str, value: str, *, instead: bool = False) -> Iterator[None]:
    """An environment variable for the length of a block.

    Args:
      instead: also if the user has set it.
    """
    before = os.environ.get(name)
    if before is not None and not instead:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before

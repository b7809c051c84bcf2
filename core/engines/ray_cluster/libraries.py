"""Libraries that shoal needs on the machines of a Ray cluster, and a look at whether a worker has them.

shoal itself is shipped (`shipping.py`); libraries are installed there, in the image or by Ray (`pip` in a
``runtime_env``). One task looks at one worker when a driver connects, so that what is missing is told at once, by name
and all together. It starts the worker that the driver's first task needs anyway. A machine that has less than that
worker shows when work comes there: the task fails with the ModuleNotFoundError itself.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.exceptions

from ...errors import EngineUnavailableError
from .failures import translating

logger = logging.getLogger("shoal")

#: What `import shoal` takes, with the versions of setup.cfg.
CORE = {"cloudpickle": "cloudpickle>=3.0", "msgpack": "msgpack>=1.0.5", "numpy": "numpy>=1.26"}
#: What rollout workers take besides.
ROLLOUT = {"gymnasium": "gymnasium>=1.1,<2"}
#: How long an idle cluster may take to answer; a busy one, or one that grows on demand, is not waited for.
PATIENCE_S = 30.0


def check_workers(*, is_shipped: bool, version: str, patience_s: float = PATIENCE_S) -> None:
    """Look at one worker of the cluster.

    Args:
      is_shipped: shoal goes there with the work; else it must be there.
      version: of this shoal.

    Raises:
      EngineUnavailableError: a library is missing there, or shoal.
      RuntimeEnvSetupError: Ray cannot make the environment that the connection asks for.
    """
    look = ray.remote(num_cpus=0, max_retries=0)(_look()).remote({**CORE, **ROLLOUT})
    with translating():
        if not ray.wait([look], timeout=patience_s)[0]:
            ray.cancel(look)
            logger.warning(
                "no worker of the Ray cluster has answered within %g s: it is busy, or has no machine yet, or prepares "
                "the runtime_env; work waits until one does",
                patience_s,
            )
            return
        judge(ray.get(look), is_shipped=is_shipped, version=version)


def judge(found: Mapping[str, Any], *, is_shipped: bool, version: str) -> None:
    """Say what is wrong with a worker.

    Args:
      found: "missing", names of libraries; "shoal", the version that it has, or why it has none.

    Raises:
      EngineUnavailableError: as `check_workers`.
    """
    needed = [CORE[name] for name in found["missing"] if name in CORE]
    if needed:
        everything = [*needed, *(ROLLOUT[name] for name in found["missing"] if name in ROLLOUT)]
        names = ", ".join(found["missing"])
        raise EngineUnavailableError(
            f"the workers of the Ray cluster have no {names}, which shoal needs there: install "
            f"{'it' if len(everything) == 1 else 'them'} on its machines, or let Ray do it: "
            f"init(engine='ray', runtime_env={{'pip': {everything}}})"
        )
    if found["shoal"] != version:
        what = "shoal cannot be imported on" if is_shipped else f"shoal {version} is not on"
        raise EngineUnavailableError(
            f"{what} the workers of the Ray cluster ({found['shoal']})"
            + ("" if is_shipped else ": leave ray.init() to shoal.init(engine='ray', ...), which sends it there")
        )
    if found["missing"]:
        wanted = [ROLLOUT[name] for name in found["missing"]]
        logger.warning(
            "the workers of the Ray cluster have no %s, so no environment can run there: install it on its machines, "
            "or pass runtime_env={'pip': %s}",
            ", ".join(found["missing"]),
            wanted,
        )


def _look() -> Callable[[Mapping[str, str]], dict[str, Any]]:
    """The task. A function inside of a function travels whole, so it runs where shoal cannot be imported."""

    def look(wanted: Mapping[str, str]) -> dict[str, Any]:
        missing = [name for name in wanted if importlib.util.find_spec(name) is None]
        try:
            has: str = importlib.import_module("shoal").__version__
        except ImportError as error:
            has = str(error)
        return {"missing": missing, "shoal": has}

    return look

"""What holds for every test: the tree is imported once, as `shoal`.

The repository root is the package, so a test runner or a stray path entry could import the same file as `core.errors`
beside `shoal.core.errors`. Every class would then exist twice, `except` would miss and pickles would break, far from
the cause. The guard below looks after collection and again after the last test, and fails the session by name.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import psutil
import pytest

import shoal

ROOT = Path(__file__).resolve().parent.parent


def doubles(modules: Mapping[str, ModuleType], root: Path) -> list[str]:
    """Modules of this tree that are loaded under any other name than their own.

    Args:
      modules: `sys.modules`.
      root: the folder that is the package `shoal`.

    Returns:
      A line for each; [] when all is well.
    """
    found = []
    for name, module in list(modules.items()):
        file = getattr(module, "__file__", None)
        if not file or not Path(file).is_absolute():  # torch.ops calls itself "_ops.py"
            continue
        if not (path := Path(file).resolve()).is_relative_to(root):
            continue
        parts = path.relative_to(root).with_suffix("").parts
        # Libraries of an environment inside the checkout, and tests, which pytest imports by path.
        if parts[0].startswith(".") or parts[0] == "tests" or "site-packages" in parts:
            continue
        own = ".".join(("shoal", *(part for part in parts if part != "__init__")))
        # `python -m` and pytest's own entry run a module a second time under this name; that is not an import.
        # An alias (`shoal.exceptions`) is the same module object, so its classes exist once.
        if name not in (own, "__main__", "__mp_main__") and modules.get(own) is not module:
            found.append(f"{path.relative_to(root)} is loaded as {name!r}, its name is {own!r}")
    return found


class RootIsNoTestPackage:
    """Collect the repository root as a plain folder.

    It has an `__init__.py`, for which pytest would otherwise make a package of tests and import the file by its path, a
    second time and under the name of the checkout's folder. As a plugin of its own, because pytest asks this conftest
    only about folders below it.
    """

    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path.resolve() == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    # Ray would leave a token in the home of whoever runs the tests. It looks when it is imported, here or in a child.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    config.pluginmanager.register(RootIsNoTestPackage())
    # Under nohup, or behind `&` in a script, signals come ignored, and so they would to all that a test starts.
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGQUIT: signal.SIG_DFL}
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _check() -> None:
    if Path(shoal.__path__[0]).resolve() != ROOT:
        pytest.exit(f"these tests are in {ROOT}, but `shoal` is {shoal.__path__[0]}: pip install -e .", returncode=4)
    if found := doubles(sys.modules, ROOT):
        pytest.exit("modules of shoal are loaded twice:\n  " + "\n  ".join(found), returncode=4)


def pytest_collection_finish() -> None:
    _check()


@pytest.fixture(scope="session", autouse=True)
def _tree_is_imported_once() -> Iterator[None]:
    yield
    _check()


@pytest.fixture(scope="session")
def has_ended() -> Callable[[int], bool]:
    """Whether a process is gone, or waits for its parent to hear of its end; it may go between two looks at it."""

    def look(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return look


@pytest.fixture(scope="session")
def can_compile() -> bool:
    """Whether torch.compile finds a compiler on this machine; where it does not, what is tested is that it is told."""
    import torch

    from shoal.rllib.config import ConfigError
    from shoal.rllib.learning import compilation

    try:
        compilation._try_to_compile(torch.device("cpu"))
    except ConfigError:
        return False
    return True

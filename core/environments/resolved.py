"""What a worker is started with, in full: the environment that a ``runtime_env`` comes to in a given process.

    runtime_env --resolve: merged with the parent's, folders copied--> Environment --encode--> bytes, in messages
    in the worker, before any code of the user's:                      Environment.apply()

Equal bytes are the same pool of workers; empty ones stand for nothing special.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import RuntimeEnvSetupError
from . import snapshots
from .runtime_env import WantedEnvironment, refuse_foreign

#: Largest encoded environment: it travels in one packet to the zygote.
LIMIT_BYTES = 48 * 1024


@dataclass(frozen=True, slots=True)
class Environment:
    """What differs from the driver's own surroundings.

    working_dir: where to run, and first on ``sys.path``; empty: where the driver runs. py_modules: then these.
    threads: that a numerical library may start; 0: one. It goes with the CPUs of the work and is not handed down.
    """

    env_vars: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    py_modules: tuple[str, ...] = ()
    threads: int = 0

    def encode(self) -> bytes:
        """Equal environments have equal bytes. Raises ValueError when they are too many."""
        if self == Environment():
            return b""
        encoded = json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()
        if len(encoded) > LIMIT_BYTES:
            raise ValueError(
                f"a runtime_env of {len(encoded)} bytes is too large, the limit is {LIMIT_BYTES}: pass large values as "
                "arguments or in files"
            )
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> Environment:
        if not encoded:
            return cls()
        fields = json.loads(encoded)
        return cls(fields["env_vars"], fields["working_dir"], tuple(fields["py_modules"]), fields["threads"])

    @property
    def path(self) -> list[str]:
        """What stands first on ``sys.path``."""
        return [*([self.working_dir] if self.working_dir else []), *self.py_modules]

    def describe(self) -> dict[str, Any]:
        """As ``get_runtime_context().runtime_env`` shows it: the keys that say something."""
        said = {"env_vars": dict(self.env_vars), "working_dir": self.working_dir, "py_modules": list(self.py_modules)}
        return {name: value for name, value in said.items() if value}

    def apply(self) -> None:
        """Make it the calling process's own.

        Raises:
          RuntimeEnvSetupError: the folder cannot be entered.
        """
        os.environ.update({name: _expand(value) for name, value in self.env_vars.items()})
        if self.working_dir:
            try:
                os.chdir(self.working_dir)
            except OSError as error:
                raise RuntimeEnvSetupError(f"runtime_env: cannot enter the copy of working_dir: {error}") from error
        sys.path[:0] = self.path

    def limit_threads(self) -> None:
        """Tell numerical libraries how many threads to start, unless the user has said how many: Ray's rule.

        The default of those libraries, one per CPU of the machine, makes the workers of a machine wait for each other:
        two that add small tensors on two CPUs were up to eight times slower.
        """
        os.environ.setdefault("OMP_NUM_THREADS", str(self.threads or 1))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """`apply` for the length of a block, for work that runs in the driver's own process."""
        before = {name: os.environ.get(name) for name in self.env_vars}
        folder, path = os.getcwd() if self.working_dir else "", list(sys.path)
        self.apply()
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            if folder:
                os.chdir(folder)
            if self.path:
                sys.path[:] = path


class Environments:
    """Turns what is asked for into environments, for one process of one session."""

    def __init__(self, inherited: bytes, directory: str, *, limit_bytes: int) -> None:
        """
        Args:
          inherited: encoded, of the process itself: what its tasks and actors get unless they ask for more.
          directory: where copies go; empty: nothing is copied, work runs in the folders themselves.
          limit_bytes: of one copy.
        """
        self.inherited = dataclasses.replace(Environment.decode(inherited), threads=0).encode()
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._known: dict[tuple[WantedEnvironment | None, int], bytes] = {}

    def resolve(self, wanted: WantedEnvironment | None, threads: int = 0) -> bytes:
        """The environment of work that this process submits, encoded. A folder is copied when it is first named here.

        Args:
          threads: that the work may start; 0: one.

        Raises:
          ValueError: a folder is gone, or too large; or only a Ray cluster can do what is wanted.
          RuntimeEnvSetupError: it cannot be copied.
        """
        if wanted is None and not threads:
            return self.inherited
        known = self._known.get((wanted, threads))
        if known is None:
            parent = Environment.decode(self.inherited)
            merged = parent if wanted is None else self._merge(parent, wanted)
            known = self._known[wanted, threads] = dataclasses.replace(merged, threads=threads).encode()
        return known

    def _merge(self, parent: Environment, wanted: WantedEnvironment) -> Environment:
        """Variables are merged one by one; a folder or list that is given replaces the parent's."""
        refuse_foreign(wanted)
        return Environment(
            env_vars=merged(parent.env_vars, dict(wanted.env_vars)),
            working_dir=parent.working_dir
            if wanted.working_dir is None
            else self._copy(wanted.working_dir, wanted, name=""),
            py_modules=parent.py_modules
            if wanted.py_modules is None
            else tuple(self._copy(path, wanted, name=os.path.basename(path)) for path in wanted.py_modules),
        )

    def _copy(self, path: str, wanted: WantedEnvironment, *, name: str) -> str:
        if not self._directory:
            return os.path.dirname(path) if name else path
        try:
            return snapshots.take(
                path, self._directory, excludes=wanted.excludes, limit_bytes=self._limit_bytes, name=name
            )
        except OSError as error:
            raise RuntimeEnvSetupError(f"runtime_env: cannot copy {path!r} for the workers: {error}") from error


@contextmanager
def applied(encoded: bytes) -> Iterator[None]:
    """`Environment.applied` of an encoded one; nothing for an empty one."""
    if not encoded:
        yield
        return
    with Environment.decode(encoded).applied():
        yield


def merged(parent: Mapping[str, str], child: Mapping[str, str]) -> dict[str, str]:
    """Variables of both; of one that both have, the child's."""
    return {**parent, **child}


def _expand(value: str) -> str:
    """``${NAME}`` stands for the variable as it was before; one that is not set is empty."""
    return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], ""), value)

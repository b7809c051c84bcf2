"""`--engine` and `--address`: where the work of a command is done, and the words if it cannot be done there.

Engines of this machine get as many CPUs as the command wants. A Ray cluster, that of --address or RAY_ADDRESS, has what
it has; where neither is said, a Ray is started here with as many CPUs as the command wants, and ends with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

import shoal
from shoal.scripts.command_line import UsageError

#: A Ray of the command's own.
_LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class SessionFlags:
    """Which engine, and where."""

    engine: Literal["native", "inline", "ray"] = "native"
    """What does the work: processes of this machine (native), this process alone (inline), a Ray cluster (ray)."""

    address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT|auto|local")] = None
    """The Ray cluster; by default that of RAY_ADDRESS, else a Ray of its own (local)."""

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
          UsageError: there is an address for an engine of this machine.
        """
        if self.address is not None and self.engine != "ray":
            raise UsageError(f"--address is that of a Ray cluster, and the engine is {self.engine}: give --engine ray")

    @property
    def joins(self) -> bool:
        """Whether the work goes to a cluster that runs already, with what it has."""
        return self.engine == "ray" and self._place() != _LOCAL

    def arguments(self, **wishes: Any) -> dict[str, Any]:
        """Arguments of `shoal.init`.

        Args:
          wishes: CPUs and the like, for a session that is started here.
        """
        if self.engine != "ray":
            return {"engine": self.engine, **wishes}
        quiet: Mapping[str, Any] = {"logging_level": "warning"}
        if self.joins:
            return {"engine": self.engine, "address": self._place(), **quiet}
        return {"engine": self.engine, "address": _LOCAL, "include_dashboard": False, **quiet, **wishes}

    def begin(self, **wishes: Any) -> None:
        """Start or join the session.

        Args:
          wishes: as for `arguments`.

        Raises:
          UsageError: the address is none. Other failures are `shoal.exceptions.EngineUnavailableError`.
        """
        try:
            shoal.init(**self.arguments(**wishes))
        except ValueError as error:
            if self.engine != "ray":
                raise
            raise UsageError(str(error)) from error

    def _place(self) -> str | None:
        if self.address is None:
            return None if os.environ.get("RAY_ADDRESS") else _LOCAL
        return self.address


#: What the commands do unless they are told otherwise: processes of this machine, or no session.
NATIVE, INLINE = SessionFlags(), SessionFlags(engine="inline")

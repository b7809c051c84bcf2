"""The children that a benchmark is measured in: one process per engine and round, with a deadline for every case.

A child is one of the programs of this folder, run by an interpreter that has its engine; shoal and Ray need not share
one. It tells its results line by line through a pipe. When it is silent for too long, or a signal ends the benchmark,
it is ended with all it started; its files lie in a folder that is removed here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shoal
from shoal.scripts.interruption import Interruption

CASES, LIFE_CYCLE = "cases.py", "life_cycle.py"
#: How long a child may take for one case, or for ending, before it is given up.
PATIENCE_S = 600.0
#: Ray, without its network, its notices and its colours.
_RAY_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_RAY_SETTINGS = {
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "_node_ip_address": "127.0.0.1",
}


class ChildError(RuntimeError):
    """A child ended before it had told all, or took too long. One paragraph: which, and what it printed last."""


@dataclass(frozen=True)
class Engine:
    """What is measured: the module with Ray's API, and the interpreter that has it."""

    module: str
    python: str = sys.executable

    def environment(self) -> dict[str, str]:
        """The child's environment: ours, in which Ray says nothing."""
        return {**os.environ, **(_RAY_ENVIRONMENT if self.module == "ray" else {})}

    def settings(self, directory: str) -> dict[str, Any]:
        """Arguments of `init` that make it quiet and let it write into `directory` alone."""
        return {**_RAY_SETTINGS, "_temp_dir": directory} if self.module == "ray" else {}

    def version(self) -> str:
        """Version of the engine.

        Raises:
          ChildError: the interpreter cannot be run, or does not have it.
        """
        if self.module == "shoal":
            return shoal.__version__
        # Imported, for what is installed may be broken; the package is asked, as not every module tells its version.
        code = f"import importlib.metadata, {self.module}; print(importlib.metadata.version({self.module!r}))"
        try:
            ran = subprocess.run(
                [self.python, "-c", code], capture_output=True, text=True, timeout=60, check=False,
                env=self.environment(),
            )  # fmt: skip
        except OSError as error:
            raise ChildError(f"{self.python} cannot be run: {error.strerror}") from None
        if ran.returncode:
            raise ChildError(f"{self.python} cannot import {self.module}: {_last_line(ran.stderr)}")
        return ran.stdout.strip()


def run(engine: Engine, program: str, order: dict[str, Any], *, patience_s: float = PATIENCE_S) -> Iterator[Any]:
    """Run one of the programs of this folder and give what it tells, as it comes; in the main thread, for signals.

    Args:
      engine: on which.
      program: its file, such as `CASES`.
      order: what the program is to do; the engine and what belongs to the child are added here.
      patience_s: how long it may be silent.

    Raises:
      ChildError: it failed or was silent for too long.
      KeyboardInterrupt: a signal; the child has ended.
    """
    interruption = Interruption()
    with interruption.handled():
        yield from _run(engine, program, order, patience_s, interruption)


def _run(
    engine: Engine, program: str, order: dict[str, Any], patience_s: float, interruption: Interruption
) -> Iterator[Any]:
    directory = tempfile.mkdtemp(prefix="bench-")  # short: Ray's sockets lie in it
    reading, writing = os.pipe()
    init = {**order.get("init", {}), **engine.settings(directory)}
    told = json.dumps({**order, "engine": engine.module, "init": init, "results_fd": writing})
    with tempfile.TemporaryFile("w+") as printed:
        with interruption.deferred(lambda: None):  # a child that has started is one that will be ended
            child = subprocess.Popen(
                [engine.python, str(Path(__file__).with_name(program)), told],
                stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, pass_fds=[writing], start_new_session=True,
                env=engine.environment(),
            )  # fmt: skip
        os.close(writing)
        try:
            if interruption.requested:
                raise KeyboardInterrupt
            for line in _lines(reading, patience_s):
                yield json.loads(line)
            code = child.wait(patience_s)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise ChildError(f"{engine.module} was silent for {patience_s:g} s{_tail(printed)}") from None
        finally:
            interruption.over()
            os.close(reading)
            _end(child)
            shutil.rmtree(directory, ignore_errors=True)
        if code:
            raise ChildError(f"{engine.module} ended with exit code {code}{_tail(printed)}")


def _lines(reading: int, patience_s: float) -> Iterator[bytes]:
    """What comes through the pipe until its end.

    Raises:
      TimeoutError: nothing came for so long.
    """
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    pending = b""
    while True:
        if not poll.poll(patience_s * 1000):
            raise TimeoutError
        chunk = os.read(reading, 65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        yield from lines


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child that is still there; both engines take down what they started when their driver is told to end."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()  # it cannot refuse
    deadline = time.monotonic() + 5
    with contextlib.suppress(ProcessLookupError):  # all have gone
        while time.monotonic() < deadline:
            os.killpg(child.pid, 0)
            time.sleep(0.05)  # what the engine started needs a moment to see that its driver has gone
        os.killpg(child.pid, signal.SIGKILL)


def _tail(printed: Any) -> str:
    printed.seek(0)
    lines: Sequence[str] = [line.rstrip() for line in printed.read().splitlines() if line.strip()]
    return "".join(f"\n    {line}" for line in ["; it printed last:", *lines[-8:]]) if lines else ""


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"

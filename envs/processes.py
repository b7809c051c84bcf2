"""The handle of one process of a ``ParallelVectorEnv``: starting it, hearing it, knowing how it ended.

The process inside is ``child.py``. It is a fresh interpreter and no fork: whoever steps environments has threads (a
rollout worker has some of the runtime's), and a fork would copy their locks as they happen to stand. It inherits three
descriptors and nothing else: its end of the line, the reading end of the lifeline, the shared block.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from .channel import CALL, DONE, FAILED, Channel
from .child import Setup
from .columns import UnsupportedSpace
from .registry import MissingLibrary
from .vector import EnvCrash, EnvFailure

#: Seconds in which environments may close before their process is killed.
CLOSE_DEADLINE_S = 5.0

_PROGRAM = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2]).main(*map(int, sys.argv[3:]))
"""
#: One thread for a process's linear algebra: there are as many processes as cores.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_FAILURES: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (EnvFailure, EnvCrash, UnsupportedSpace, MissingLibrary, RuntimeError)
}


class ChildProcess:
    """One process, and those that take its place when it ends.

    Args:
      rows: of the shared block that its copies have, by group.
      block: descriptor of the shared block.

    Attributes:
      failures: how often it ended without a finished episode in between.
      lost: groups whose next step is no transition, because the process ended.
    """

    def __init__(self, rows: Sequence[slice], block: int) -> None:
        self.rows, self._block = list(rows), block
        self.failures = 0
        self.lost: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    def start(self, setup: Setup) -> None:
        """Start the process, which makes its environments and then answers with their spaces."""
        mine, its = socket.socketpair()
        end, self._lifeline = os.pipe()
        handed = (its.fileno(), end, self._block)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), Setup.__module__, *map(str, handed)],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                env={**_ONE_THREAD, **os.environ},
            )
        finally:
            its.close()
            os.close(end)
        self.channel = Channel(mine)
        self.channel.send_frame(CALL, setup)

    def hear(self, deadline_s: float) -> Any:
        """The next answer; None where it is only that a step is done.

        Args:
          deadline_s: how long to wait; 0 is for ever.

        Raises:
          EnvFailure, UnsupportedSpace, RuntimeError: what was raised in the process.
          ChannelClosed: the process has ended.
          TimeoutError: there is no answer.
        """
        self.channel.set_deadline(deadline_s)
        status = self.channel.receive()
        if status == DONE:
            return None
        answer = self.channel.receive_frame()
        if status == FAILED:
            kind, text = answer
            raise _FAILURES[kind](text)
        return answer

    def kill(self) -> str:
        """End the process at once. Gives how it had ended, if it had: as the end of a sentence."""
        if self._process is None:
            return "was never started"
        try:
            code: int | None = self._process.wait(0.1)  # the line closes a moment before the process is gone
        except subprocess.TimeoutExpired:
            code = None
        self._close_lifeline()
        self.channel.close()
        self._process.wait()  # the kernel has killed it: not a question of time
        self._process = None
        if code is None:
            return "hung"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def hang_up(self) -> None:
        """Let the process see that it is no longer needed."""
        if self._process is not None:
            self.channel.close()

    def end(self) -> None:
        """Let the environments close, then end the process. May be called twice."""
        self.hang_up()
        if self._process is None:
            return
        try:
            self._process.wait(CLOSE_DEADLINE_S)
        except subprocess.TimeoutExpired:
            pass  # what does not close is killed in the next line
        self._close_lifeline()
        self._process.wait()
        self._process = None

    def _close_lifeline(self) -> None:
        os.close(self._lifeline)
        self._lifeline = -1


def end_all(processes: Sequence[ChildProcess], block: int) -> None:
    """End processes that share a block, and let go of it."""
    for process in processes:
        process.hang_up()  # all at once, so that they close side by side
    for process in processes:
        process.end()
    os.close(block)

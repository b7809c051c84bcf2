"""Commands in processes of their own, some at a time: one that fails does not end the others, a signal ends all gently.

The processes are in sessions of their own, so that a signal from the terminal reaches this process alone. It passes the
first one on as an interrupt, with which `shoal train` saves and leaves; a further one likewise, with which that leaves
at once; and it goes only when they have gone. Used by `shoal results`.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path

from shoal.scripts.interruption import Interruption

#: A command, and the file to which it prints; None: where this process prints.
Job = tuple[Sequence[str], Path | None]


class _Children:
    """The processes that are under way. Threads start and await them; the main thread stops them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopping = False

    def run(self, command: Sequence[str], output: Path | None) -> int:
        """Start one and wait for its end; gives its exit code, 128 + signal if it died of one."""
        if output is None:
            return self._run(command, None)
        with output.open("ab") as file:
            return self._run(command, file.fileno())

    def _run(self, command: Sequence[str], output: int | None) -> int:
        with self._guard:
            if self._is_stopping:
                return 128 + signal.SIGINT
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
            self._running.add(process)
        code = process.wait()
        with self._guard:
            self._running.remove(process)
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """Interrupt those that run; none is started from now on."""
        with self._guard:
            self._is_stopping = True
            for process in self._running:
                process.send_signal(signal.SIGINT)


def run_all(jobs: Mapping[str, Job], at_once: int) -> Iterator[tuple[str, int]]:
    """Run them all; in the main thread only, for it takes the signals.

    Args:
      jobs: by name; begun in this order.
      at_once: how many at a time.

    Yields:
      Name and exit code, as they end.

    Raises:
      KeyboardInterrupt: a signal; none of the processes is left.
    """
    children = _Children()
    with Interruption().handled(), ThreadPoolExecutor(at_once) as pool:
        futures: dict[Future[int], str] = {pool.submit(children.run, *job): name for name, job in jobs.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            children.stop()
            _await_all(list(futures), children)
            raise


def _await_all(futures: Sequence[Future[int]], children: _Children) -> None:
    while True:
        try:
            wait(futures)
        except KeyboardInterrupt:
            children.stop()
        else:
            return

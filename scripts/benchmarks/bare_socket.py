"""What two processes need for a question and an answer when there is nothing but a socket between them: what the
machine takes of a call, whoever makes it. Run as a program it is the one that answers.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MESSAGE = b"?" * 150


@contextmanager
def answered(core: int) -> Iterator[Callable[[], bytes]]:
    """A process on this core that answers, and what asks it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            program = [sys.executable, __file__, str(theirs.fileno()), str(core)]
            process = subprocess.Popen(program, pass_fds=[theirs.fileno()])

        def ask() -> bytes:
            ours.send(_MESSAGE)
            return ours.recv(len(_MESSAGE))

        with process:
            try:
                ask()
                yield ask
            finally:
                ours.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Say again what is said, until nobody speaks."""
    descriptor, core = map(int, sys.argv[1:])
    os.sched_setaffinity(0, {core})
    with socket.socket(fileno=descriptor) as theirs:
        while heard := theirs.recv(len(_MESSAGE)):
            theirs.send(heard)


if __name__ == "__main__":
    main()

"""Standard streams that were closed, are full, or lose their reader: `shoal train >&-`, `> /dev/full`, `| head -1`.

A run is worth more than its display, so `Outlet` goes on without it; commands that only print end instead (see
`command_line`). Both first turn the stream to nowhere: the interpreter flushes it once more at exit and would complain.
"""

from __future__ import annotations

import faulthandler
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

#: Exit code of a command that failed and has told why.
FAILED = 1


def make_ready() -> None:
    """Let writing to the standard streams fail only where the reader does.

    A stream that the caller has closed gets an end that leads nowhere. To be called first: a file or socket that is
    opened before would get the stream's number, and a child's messages would go into it. What an encoding has no sign
    for, such as the bytes of a strange file name, is written as an escape. A crash in native code, as of an environment
    that plays in this process, is told on stderr with the lines of Python that led there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if not faulthandler.is_enabled():
        faulthandler.enable(2, all_threads=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python does for stderr


def silence(stream: TextIO) -> None:
    """Let what a stream still holds, and all that follows, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Outlet:
    """A text stream for a display that may be lost while the work behind it goes on.

    Args:
      stream: where to write.
      on_loss: called once, with the reason, when that fails for the first time; what follows goes nowhere.
    """

    def __init__(self, stream: TextIO, on_loss: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._on_loss = on_loss
        self.is_lost = False

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        silence(self._stream)
        if not self.is_lost:
            self.is_lost = True
            self._on_loss(error)

    def __getattr__(self, name: str) -> Any:  # isatty, encoding, fileno: what a display asks of its stream
        return getattr(self._stream, name)


class OutputError(RuntimeError):
    """stdout cannot be written. One line of text; none if its reader has left (`| head -1`), who expects silence."""


@contextmanager
def printing() -> Iterator[None]:
    """A block that prints, and whose output is at its reader's when it ends.

    Raises:
      OutputError: it cannot be.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        told = "" if isinstance(error, BrokenPipeError) else f"cannot write the output: {error.strerror}"
        raise OutputError(told) from error


def say(text: str) -> None:
    """Write a message to stderr, if anyone reads it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # nobody can be told
        silence(sys.stderr)


def leave(code: int) -> NoReturn:
    """End the process after a command that has said all there is to say.

    A late Ctrl-C no longer matters. After a failure libraries fail once more at exit (tensorboardX flushes to the full
    disk): their tracebacks would bury what was told.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == FAILED:
        silence(sys.stderr)
    sys.exit(code)

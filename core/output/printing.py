"""The driver's side of workers' output: a thread that reads it from the head and prints it.

It writes through ``sys.stdout`` and ``sys.stderr`` as they are at that moment, so that notebooks and test runners see
it too. It ends when the head does, and what it has read by then is printed before `close` returns.

What is not read here waits in the head, then in the workers, whose prints then wait as for any slow pipe: nothing is
dropped and no memory grows. Lines are dropped only where the driver has no stream to print to, and where the session
ends and nobody has taken them for a while; then their number is told.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import TextIO

from ..protocol.worker_output import STDERR, Frames
from .output_lines import Folding, Line, LineReader, Speaker

_READ_BYTES = 64 * 1024
#: Characters that fit into a pipe that has room at all, whatever they are.
_PIECE = select.PIPE_BUF // 4
#: How often a thread that waits for room looks whether it shall give up.
_LOOK_S = 0.1


class Printer:
    """Prints what workers have printed."""

    def __init__(self, source: socket.socket, mark: bytes, *, fold_s: float) -> None:
        """
        Args:
          source: frames from the head; closed at the end.
          mark: see worker_output.py.
          fold_s: window in which lines that several workers print alike are folded; 0: none are.
        """
        self._source = source
        self._mark = mark
        self._frames = Frames()
        self._speakers: dict[int, Speaker] = {}
        self._readers: dict[tuple[int, int], LineReader] = {}
        self._folding = Folding(fold_s)
        self._is_over = False
        self._unshown = 0
        self._thread = threading.Thread(target=self._run, name="shoal-output", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Wait until everything is printed; the head has ended. Not longer than `timeout_s`: a terminal may be
        stopped. What is left then is said to be.
        """
        if self._thread is threading.current_thread():
            return
        self._thread.join(timeout_s)
        self._is_over = True
        self._thread.join(2 * _LOOK_S)
        if self._unshown:
            missing = f"shoal: at least {self._unshown} lines of workers are not shown: nobody takes them"
            self._write(sys.stderr, [missing])

    def _run(self) -> None:
        with self._source:
            while data := self._receive():
                self._print(self._lines(data))
        self._print([line for reader in self._readers.values() for line in reader.end()] + self._folding.end())

    def _receive(self) -> bytes:
        """The next bytes; empty when there will be none. Folded lines are printed when their time comes."""
        while True:
            due_s = self._folding.next_due_s()
            self._source.settimeout(None if due_s is None else max(0.001, due_s - time.monotonic()))
            try:
                return self._source.recv(_READ_BYTES)
            except TimeoutError:
                self._print(self._folding.due(time.monotonic()))
            except OSError:
                return b""  # the head was killed with frames of ours on the way

    def _lines(self, data: bytes) -> list[Line]:
        lines: list[Line] = []
        now_s = time.monotonic()
        for worker, stream, piece in self._frames.feed(data):
            key = (worker, stream)
            if piece:
                reader = self._readers.get(key)
                if reader is None:
                    speaker = self._speakers.setdefault(worker, Speaker())
                    reader = self._readers[key] = LineReader(stream, self._mark, speaker)
                found = reader.feed(piece)
            else:
                ended = self._readers.pop(key, None)
                found = ended.end() if ended is not None else []
                if not any(number == worker for number, _ in self._readers):
                    self._speakers.pop(worker, None)
            for line in found:
                lines += self._folding.feed(line, now_s)
        return self._folding.due(now_s) + lines

    def _print(self, lines: Iterable[Line]) -> None:
        """Neighbours that go to one stream are written together."""
        target: TextIO | None = None
        texts: list[str] = []
        for line in lines:
            wanted = sys.stderr if line.stream == STDERR else sys.stdout
            if wanted is not target:
                self._write(target, texts)
                target, texts = wanted, []
            texts.append(line.shown(colour=_is_terminal(wanted)))
        self._write(target, texts)

    def _write(self, stream: TextIO | None, texts: list[str]) -> None:
        """A write that would wait for ever, as for a stopped terminal, must not hold up the end of the program: so in
        pieces that fit into a pipe that has room.
        """
        if stream is None or not texts:
            return
        whole = "\n".join(texts) + "\n"
        descriptor = _descriptor(stream)
        step = len(whole) if descriptor is None else _PIECE
        # Closed, or its reader has gone: the driver's own prints will say so. Somebody else's object may raise
        # anything, and no thread of the user's could be told.
        with contextlib.suppress(Exception):
            for at in range(0, len(whole), step):
                if descriptor is not None and not self._await_room(descriptor):
                    self._unshown += whole.count("\n", at)
                    return
                stream.write(whole[at : at + step])
                stream.flush()

    def _await_room(self, descriptor: int) -> bool:
        """Whether the stream takes more, before the session is over and gives up."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while not poll.poll(0 if self._is_over else _LOOK_S * 1000):
            if self._is_over:
                return False
        return True


def _is_terminal(stream: TextIO | None) -> bool:
    with contextlib.suppress(Exception):  # somebody else's object; closed, or without the method
        return stream is not None and stream.isatty()
    return False


def _descriptor(stream: TextIO) -> int | None:
    """What a write would wait for; None: it goes to memory, a notebook, or nowhere."""
    with contextlib.suppress(Exception):  # as above
        return stream.fileno()
    return None

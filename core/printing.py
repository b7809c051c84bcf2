"""The driver's side of workers' output: a thread that reads it from the head and prints it.

It writes through ``sys.stdout`` and ``sys.stderr`` as they are at that moment, so that notebooks and test runners see
it too. It ends when the head does, and what it has read by then is printed before `close` returns.

What is not read here waits in the head, then in the workers, whose prints then wait as for any slow pipe: nothing is
dropped and no memory grows. Only where the driver has no stream to print to are lines dropped.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import TextIO

from .output_lines import Folding, Line, LineReader, Speaker
from .protocol.worker_output import STDERR, Frames

_READ_BYTES = 64 * 1024


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
        self._thread = threading.Thread(target=self._run, name="shoal-output", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Wait until everything is printed; the head has ended. Not longer than `timeout_s`: a terminal may be
        stopped.
        """
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        with self._source:
            while data := self._receive():
                _print(self._lines(data))
        _print([line for reader in self._readers.values() for line in reader.end()] + self._folding.end())

    def _receive(self) -> bytes:
        """The next bytes; empty when there will be none. Folded lines are printed when their time comes."""
        while True:
            due_s = self._folding.next_due_s()
            self._source.settimeout(None if due_s is None else max(0.001, due_s - time.monotonic()))
            try:
                return self._source.recv(_READ_BYTES)
            except TimeoutError:
                _print(self._folding.due(time.monotonic()))
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


def _print(lines: Iterable[Line]) -> None:
    """Neighbours that go to one stream are written together."""
    target: TextIO | None = None
    texts: list[str] = []
    for line in lines:
        wanted = sys.stderr if line.stream == STDERR else sys.stdout
        if wanted is not target:
            _write(target, texts)
            target, texts = wanted, []
        texts.append(line.shown(colour=_is_terminal(wanted)))
    _write(target, texts)


def _is_terminal(stream: TextIO | None) -> bool:
    with contextlib.suppress(Exception):  # somebody else's object; closed, or without the method
        return stream is not None and stream.isatty()
    return False


def _write(stream: TextIO | None, texts: list[str]) -> None:
    if stream is None or not texts:
        return
    # Closed, or its reader has gone: the driver's own prints will say so. Somebody else's object may raise anything,
    # and no thread of the user's could be told.
    with contextlib.suppress(Exception):
        stream.write("\n".join(texts) + "\n")
        stream.flush()

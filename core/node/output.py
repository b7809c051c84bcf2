"""The head's side of workers' output: reads their pipes, keeps the last lines of stderr, hands all to the driver.

    worker's fd 1, 2 --pipe--> [inputs] --read, 64 KiB at a time--> frame --> sink: the driver's socket

Memory is bounded: while the sink is full, no pipe is read, so workers that print more than the driver takes wait in
their prints. What is written before a worker ends is in its pipe then, and is read before its end is told.

The pipes hang in a selector of their own, whose one descriptor the loop watches: polling costs the same with one worker
or a hundred. A second one around it lets the loop wait for the sink instead.
"""

from __future__ import annotations

import os
import selectors
import socket
from dataclasses import dataclass

from ..protocol.worker_output import STDERR, STDOUT, frame, without_marks

_READ_BYTES = 64 * 1024
#: What is kept of a worker's stderr, and shown of it when it dies.
_TAIL_BYTES = 8 * 1024
_TAIL_LINES = 20
#: Lines of a crash's traceback that help nobody: the frames below the user's code, which are ours, and what follows.
_UNTOLD = (
    f'  File "{os.path.dirname(os.path.dirname(__file__))}{os.sep}',
    '  File "<string>", line 1 in <module>',
    "Extension modules: ",
)
#: Reads that empty a pipe: what has written it is dead, but may have left a process that goes on.
_FULL_PIPE_READS = 4


@dataclass(slots=True, eq=False)
class _Pipe:
    """The reading end of a worker's stream."""

    descriptor: int
    number: int
    stream: int
    tail: bytes = b""


class OutputCollector:
    """Output of all workers of a node."""

    def __init__(self, sink: socket.socket | None, mark: bytes) -> None:
        """
        Args:
          sink: to the driver; None: nothing is handed on, only tails are kept.
          mark: see worker_output.py.
        """
        self._sink = sink
        self._mark = mark
        self._pending = bytearray()
        self._pipes: dict[bytes, list[_Pipe]] = {}
        #: Workers whose last words have been asked for: they are forgotten when their pipes have ended.
        self._heard: set[bytes] = set()
        self._count = 0
        self._inputs = selectors.DefaultSelector()
        self._outer = selectors.DefaultSelector()
        self._outer.register(self._inputs, selectors.EVENT_READ)
        self._waits_for_sink = False
        if sink is not None:
            sink.setblocking(False)

    @property
    def descriptor(self) -> int:
        """Readable when `ready` has something to do."""
        return self._outer.fileno()

    def open(self, worker_id: bytes) -> list[int]:
        """Pipes for a worker that is about to be forked: the ends for its stdout and stderr, which the caller passes
        on and closes. None where there are no descriptors left: then it prints to where the head does.
        """
        self._count += 1
        ends: list[int] = []
        pipes: list[_Pipe] = []
        for stream in (STDOUT, STDERR):
            try:
                reading, writing = os.pipe()
            except OSError:
                for descriptor in (*ends, *(pipe.descriptor for pipe in pipes)):
                    os.close(descriptor)
                return []
            os.set_blocking(reading, False)
            ends.append(writing)
            pipes.append(_Pipe(reading, self._count, stream))
        for pipe in pipes:
            self._inputs.register(pipe.descriptor, selectors.EVENT_READ, (worker_id, pipe))
        self._pipes[worker_id] = pipes
        return ends

    def ready(self) -> None:
        """Hand on what waits, then read what can be read, once from each pipe."""
        self._send()
        if not self._waits_for_sink:
            for key, _ in self._inputs.select(0):
                self._read(*key.data)
            self._send()

    def last_words(self, worker_id: bytes) -> str:
        """The last lines of a dead worker's stderr. What it has written is read first."""
        pipes = list(self._pipes.get(worker_id, ()))
        for pipe in pipes:
            self._read_all(worker_id, pipe)
        self._send()
        if pipes:
            self._heard.add(worker_id)
            self._forget_if_over(worker_id)
        tail = b"".join(pipe.tail for pipe in pipes if pipe.stream == STDERR)
        text = without_marks(self._mark, tail[tail.find(b"\n") + 1 :] if len(tail) >= _TAIL_BYTES else tail)
        lines = [line for line in text.decode("utf-8", "replace").splitlines() if not line.startswith(_UNTOLD)]
        return "\n".join(lines[-_TAIL_LINES:]).strip("\n")

    def finish(self, timeout_s: float) -> None:
        """The session ends: hand on what has been written until now, if the driver takes it in time."""
        for worker_id, pipes in list(self._pipes.items()):
            for pipe in list(pipes):
                self._read_all(worker_id, pipe)
        if self._sink is not None:
            self._sink.settimeout(timeout_s)
            try:
                self._sink.sendall(self._pending)
            except OSError:
                pass  # the driver has gone, or its terminal is stopped
            self._sink.close()

    def _read_all(self, worker_id: bytes, pipe: _Pipe) -> None:
        """What is in the pipe now; a process that has outlived its worker may go on filling it."""
        for _ in range(_FULL_PIPE_READS):
            if not self._read(worker_id, pipe):
                return

    def _read(self, worker_id: bytes, pipe: _Pipe) -> bool:
        """Read once; whether there may be more."""
        if pipe.descriptor < 0:
            return False
        try:
            data = os.read(pipe.descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if self._sink is not None:
            self._pending += frame(pipe.number, pipe.stream, data)
        if data and pipe.stream == STDERR:
            pipe.tail = (pipe.tail + data)[-_TAIL_BYTES:]
        if not data:
            self._close(worker_id, pipe)
        return bool(data)

    def _close(self, worker_id: bytes, pipe: _Pipe) -> None:
        self._inputs.unregister(pipe.descriptor)
        os.close(pipe.descriptor)
        pipe.descriptor = -1
        self._forget_if_over(worker_id)

    def _forget_if_over(self, worker_id: bytes) -> None:
        if worker_id in self._heard and all(pipe.descriptor < 0 for pipe in self._pipes[worker_id]):
            self._heard.discard(worker_id)
            del self._pipes[worker_id]

    def _send(self) -> None:
        """Give the sink what it takes; while it is full, wait for it and for nothing else."""
        sink = self._sink
        if sink is None:
            return
        while self._pending:
            try:
                del self._pending[: sink.send(self._pending)]
            except BlockingIOError:
                break
            except OSError:  # the driver has gone: the zygote is about to end us
                self._pending.clear()
                self._sink = None
        if bool(self._pending) == self._waits_for_sink:
            return
        self._waits_for_sink = not self._waits_for_sink
        if self._waits_for_sink:
            self._outer.unregister(self._inputs)
            self._outer.register(sink, selectors.EVENT_WRITE)
        else:
            self._outer.unregister(sink)
            self._outer.register(self._inputs, selectors.EVENT_READ)

"""A worker's streams, on a pipe, with a clock and a loop that are the test's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from shoal.core.runtime import standard_streams
from shoal.core.runtime.standard_streams import TitledStream


class Written:
    """A stream, what has come out of it, and what it wants to be called."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self.stream = TitledStream(self._write)
        self.stream.after = lambda _delay_s, call: self.due.append(call)
        self.due: list[Callable[[], None]] = []

    def text(self) -> str:
        try:
            return os.read(self._read, 65536).decode()
        except BlockingIOError:
            return ""

    def run_due(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()

    def close(self) -> None:
        self.stream.detach()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def written() -> Iterator[Written]:
    made = Written()
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(standard_streams.time, "monotonic", lambda: now[0])
    return now


def in_a_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)


def test_a_line_that_is_being_printed_stays_in_one_piece_when_the_loop_comes_to_it(written, clock):
    written.stream.write("thread 1")  # print() writes the text,
    written.run_due()
    in_a_thread(lambda: written.stream.write("thread 2\n"))
    clock[0] += 0.01
    written.stream.write("\n")  # and its end a moment later
    assert written.text() == "thread 2\nthread 1\n"


def test_what_nobody_ends_goes_out_after_a_while(written, clock):
    written.stream.write("begun")
    written.run_due()
    assert written.text() == ""
    clock[0] += 0.2
    written.run_due()
    assert written.text() == "begun"
    assert written.due == []


def test_only_what_is_old_goes_out(written, clock):
    written.stream.write("old")
    clock[0] += 0.2
    in_a_thread(lambda: written.stream.write("new"))
    written.run_due()
    assert written.text() == "old"
    clock[0] += 0.2
    written.run_due()
    assert written.text() == "new"


def test_a_full_pipe_is_not_waited_for(written, clock):
    os.set_blocking(written.stream.fileno(), False)
    while True:
        try:
            os.write(written.stream.fileno(), b"x" * 4096)
        except BlockingIOError:
            break
    written.stream.write("begun")
    clock[0] += 0.2
    written.run_due()
    while written.text():
        pass
    written.run_due()
    assert written.text() == "begun"

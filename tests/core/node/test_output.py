"""The head reads what workers print: bounded, in order, with the last lines at hand when one dies."""

from __future__ import annotations

import os
import select
import socket

import pytest

from shoal.core.node.output import OutputCollector
from shoal.core.protocol.worker_output import STDERR, STDOUT, Frames, announcement, mark_of

ONE, TWO = b"1" * 12, b"2" * 12
MARK = mark_of(b"token")


@pytest.fixture
def ends():
    source, sink = socket.socketpair()
    yield source, sink
    source.close()
    sink.close()


def is_due(collector):
    return bool(select.select([collector.descriptor], [], [], 0)[0])


def received(source):
    source.setblocking(False)
    frames, got = Frames(), []
    while True:
        try:
            data = source.recv(1 << 20)
        except BlockingIOError:
            return got
        if not data:
            return got
        got += frames.feed(data)


def close(*descriptors):
    for descriptor in descriptors:
        os.close(descriptor)


def test_what_workers_write_reaches_the_driver_and_then_their_end(ends):
    collector = OutputCollector(ends[1], MARK)
    out, err = collector.open(ONE)
    assert not is_due(collector)
    os.write(out, b"a")
    os.write(err, b"b")
    assert is_due(collector)
    collector.ready()
    assert sorted(received(ends[0])) == [(1, STDOUT, b"a"), (1, STDERR, b"b")]
    close(out, err)
    collector.ready()
    assert sorted(received(ends[0])) == [(1, STDOUT, b""), (1, STDERR, b"")]
    assert collector.last_words(ONE) == "b", "also when the pipes ended before the process was reaped"
    assert collector.last_words(ONE) == ""
    assert not collector._pipes
    assert not is_due(collector)


def test_while_the_driver_takes_nothing_no_pipe_is_read(ends):
    collector = OutputCollector(ends[1], MARK)
    out, err = collector.open(ONE)
    os.set_blocking(out, False)
    written = 0
    for _ in range(1000):
        try:
            written += os.write(out, b"x" * 4096)
        except BlockingIOError:
            if not is_due(collector):
                break
        collector.ready()
    else:
        raise AssertionError("it took 4 MB that nobody has read")
    assert len(collector._pending) < 200_000
    taken = 0
    while taken < written:
        taken += sum(len(data) for _, _, data in received(ends[0]))
        assert is_due(collector) or taken == written
        collector.ready()
    close(out, err)


def test_the_last_lines_of_stderr_are_what_user_code_wrote(ends):
    collector = OutputCollector(ends[1], MARK)
    out, err = collector.open(ONE)
    os.write(err, announcement(MARK, 1, "f").encode() + b"".join(b"line %d\n" % number for number in range(50)))
    os.write(err, f'  File "{os.path.dirname(os.path.dirname(os.__file__))}/x.py"\n'.encode())
    close(out, err)
    words = collector.last_words(ONE).splitlines()
    assert len(words) == 20
    assert words[0] == "line 31"
    assert "x.py" in words[-1]


def test_a_process_that_outlives_its_worker_is_still_heard(ends):
    collector = OutputCollector(ends[1], MARK)
    out, err = collector.open(ONE)
    os.write(err, b"first\n")
    assert collector.last_words(ONE) == "first"
    os.write(err, b"later\n")
    collector.ready()
    assert received(ends[0]) == [(1, STDERR, b"first\n"), (1, STDERR, b"later\n")]
    close(out, err)
    collector.ready()
    assert not collector._pipes


def test_a_driver_that_has_gone_or_wants_no_output_stops_nobody(ends):
    silent = OutputCollector(None, MARK)
    out, err = silent.open(ONE)
    os.write(out, b"x")
    os.write(err, b"words\n")
    silent.ready()
    close(out, err)
    assert silent.last_words(ONE) == "words"
    collector = OutputCollector(ends[1], MARK)
    ends[0].close()
    out, err = collector.open(TWO)
    for _ in range(3):
        os.write(out, b"x")
        collector.ready()
    close(out, err)
    collector.finish(1.0)


def test_what_was_written_before_the_end_of_the_session_is_handed_on(ends):
    collector = OutputCollector(ends[1], MARK)
    out, err = collector.open(ONE)
    os.write(out, b"last\n")
    collector.finish(1.0)
    assert received(ends[0]) == [(1, STDOUT, b"last\n")]
    close(out, err)

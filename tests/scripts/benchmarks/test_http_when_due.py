"""Requests that are sent when they are due, to a server that tests hold up."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from shoal.scripts.benchmarks.http_requests import Target
from shoal.scripts.benchmarks.http_when_due import when_due

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.contextmanager
def answering(answer: Callable[[int], bytes | None]) -> Iterator[tuple[Target, list[int]]]:
    """A server that answers so to the request of that number, or hangs up; and the connections that were made."""
    listener = socket.create_server(("127.0.0.1", 0))
    numbers, lock, made, threads = iter(range(10_000)), threading.Lock(), [], []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536):
                with lock:
                    number = next(numbers)
                said = answer(number)
                if said is None:
                    return
                connection.sendall(said)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, (_, port) = listener.accept()
                made.append(port)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield Target.of(listener.getsockname()[1], "/act", b"{}", "application/json"), made
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *threads):
            thread.join(30)
            assert not thread.is_alive(), "a connection was left open"


def test_each_request_is_sent_when_it_is_due_and_answered_in_any_order():
    with answering(lambda number: GOOD) as (target, _):
        load = when_due(target, per_second=200.0, seconds=0.1)
    assert load.failed == []
    assert sorted(each.due_s for each in load.good) == pytest.approx([number / 200.0 for number in range(20)])
    assert min(each.latency_s for each in load.good) > 0.0


def test_one_slow_answer_holds_up_nobody_else_as_long_as_connections_may_be_made():
    gone = threading.Event()

    def hold_up_the_first(number: int) -> bytes:
        if number == 0:
            assert gone.wait(30)
        elif number == 9:
            gone.set()
        return GOOD

    with answering(hold_up_the_first) as (target, made):
        load = when_due(target, per_second=200.0, seconds=0.05, patience_s=30.0)
    assert len(load.good) == 10
    assert 2 <= len(made) <= 10


def test_who_waits_for_a_connection_is_late_from_when_it_was_due():
    def take_a_while(number: int) -> bytes:
        time.sleep(0.02)
        return GOOD

    with answering(take_a_while) as (target, made):
        load = when_due(target, per_second=1000.0, seconds=0.008, most_connections=2, patience_s=30.0)
    assert len(made) == 2
    assert len(load.good) == 8
    last = max(load.good, key=lambda each: each.due_s)
    assert last.latency_s > 0.07, "it was due as three pairs before it were to be answered, and then its own"


def test_a_server_that_answers_nobody_is_given_up():
    never = threading.Event()

    def wait(number: int) -> None:
        never.wait(30)

    with answering(wait) as (target, _):
        load = when_due(target, per_second=100.0, seconds=0.05, most_connections=2, patience_s=0.1)
        never.set()
    assert load.good == []
    assert [type(each.error) for each in load.failed] == [TimeoutError] * 5
    assert "not answered 0.1 s after the last was due" in str(load.failed[0].error)


@pytest.mark.parametrize(
    ("answer", "told"), [(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "503"), (None, "hung up|reset")]
)
def test_a_refusal_is_a_failure_and_the_next_request_has_a_connection_of_its_own(answer, told):
    with answering(lambda number: answer if number == 1 else GOOD) as (target, made):
        load = when_due(target, per_second=50.0, seconds=0.08)
    assert len(load.good) == 3
    [failed] = load.failed
    assert isinstance(failed.error, ConnectionError)
    assert any(word in str(failed.error) for word in told.split("|"))
    assert len(made) >= 2


def test_nobody_there_is_a_failure_of_each_request():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = Target.of(listener.getsockname()[1], "/act", b"{}", "application/json")
    load = when_due(target, per_second=100.0, seconds=0.03)
    assert [type(each.error) for each in load.answered] == [ConnectionRefusedError] * 3

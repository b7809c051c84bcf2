"""What `shoal bench http` prints, its client, and what it says of peers that are not there."""

import asyncio
import contextlib
import socket
import sys
import threading

import numpy as np
import pytest

from shoal.scripts.benchmarks import serving_http
from shoal.scripts.benchmarks.http_requests import Asker, Target, all_the_time, is_whole
from shoal.scripts.benchmarks.serving_http import Figures
from shoal.scripts.command_line import UsageError
from shoal.serving import wire


def figures(p50_s: float, slower: float = 1.0, *, rate: float, failed: int = 0) -> Figures:
    p50s = {50: [p50_s, p50_s / 2, p50_s * 2], 500: [p50_s * slower]}
    return Figures(p50s, {50: [1e-3], 500: [2e-3]}, {50: [0], 500: [failed, 0]}, [rate], [2e-3])


FOUND = {
    "shoal, JSON": figures(200e-6, rate=6000.0),
    "shoal, tensors": figures(210e-6, rate=7000.0),
    "litserve": figures(700e-6, 2.0, rate=1500.0, failed=12),
    "mosec": figures(160e-6, 4.0, rate=8000.0),
}


def test_medians_of_each_server_stand_in_a_line():
    head, first, *others = serving_http.table(FOUND)
    assert head[:5] == ["", "p50 at 50/s", "p99 at 50/s", "p50 at 500/s", "p99 at 500/s"]
    assert first == ["shoal, JSON", "200 us", "1,000 us", "200 us", "2,000 us", "6,000", "2,000 us"]
    assert [line[0] for line in (first, *others)] == list(FOUND)


def test_ours_stands_beside_each_peer_and_the_goals():
    sooner = "its p50 is 0.8 times ours at 50/s, 3.2 times ours at 500/s"
    assert serving_http.verdicts(FOUND) == [
        "litserve: ours does 4.0 times its requests/s; its p50 is 3.5 times ours at 50/s, 7.0 times ours at 500/s",
        f"mosec: ours does 0.8 times its requests/s; {sooner}; the goal is 3 times each",
        "litserve: 12 requests not answered at 500/s",
    ]
    slow = {"shoal, JSON": figures(700e-6, 1.3, rate=2000.0)}
    assert serving_http.verdicts(slow) == ["goal missed: p50 within 800 us at 500/s", "goal missed: 3,000 requests/s"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--vs", "flask"], "--vs flask: there are litserve, mosec, ray, each as NAME or NAME=PYTHON"),
    ],
)
def test_what_cannot_be_followed_is_told(arguments, complaint):
    with pytest.raises(UsageError, match=complaint):
        serving_http.bench(arguments, "shoal bench http")


def test_a_peer_that_is_not_installed_is_told_with_what_it_printed():
    with (
        pytest.raises(UsageError, match=r"--vs mosec: it does not answer .* No module named 'mosec'"),
        serving_http._theirs("mosec", sys.executable),
    ):
        pass


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 2\r\n", b"{}"),
        (b"a: b\r\ncontent-length:0\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
    ],
)
def test_an_answer_ends_where_it_says(head, body):
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body
    assert [is_whole(answer[:end]) for end in range(len(answer))] == [False] * len(answer)
    assert is_whole(answer)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"x\r\n\r\n"]
)
def test_an_answer_that_is_no_success_is_an_error(answer):
    with pytest.raises(ConnectionError):
        is_whole(answer)


@contextlib.contextmanager
def answering(answer: bytes):
    """A server that answers so to each message of each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536):
                for part in (answer[:20], answer[20:]):
                    connection.sendall(part)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield Target.of(listener.getsockname()[1], "/act", b"{}", "application/json", "token")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *threads):
            thread.join(30)
            assert not thread.is_alive(), "a connection was left open"


def test_one_asks_in_turn_and_many_all_the_time():
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as target:
        ask = Asker(target)
        ask()
        ask()
        ask.close()
        load = asyncio.run(all_the_time(target, connections=3, seconds=0.1))
    assert len(load.good) == len(load.answered) >= 3


def test_a_refusal_ends_the_measurement():
    with answering(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}") as target:
        with pytest.raises(ConnectionError, match="401"):
            asyncio.run(all_the_time(target, connections=2, seconds=5.0))
        ask = Asker(target)
        with pytest.raises(ConnectionError, match="401"):
            ask()
        ask.close()


def test_our_server_answers_the_benchmark_in_both_forms():
    with serving_http._ours(serving_http.small_net()) as (port, path):
        tensors = serving_http._tensors(np.zeros((1, 4), np.float32))
        for body, form in ((serving_http._JSON_BODY, wire.JSON_FORM), (tensors, wire.TENSOR_FORM)):
            ask = Asker(Target.of(port, path, body, form, serving_http._TOKEN))
            ask()
            ask.close()

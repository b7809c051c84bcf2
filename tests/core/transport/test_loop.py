"""The loop: messages, timers, and who drives when several threads want to. Two endpoints in one process, no other."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from shoal.core.protocol import messages as m
from shoal.core.transport import loop
from shoal.core.transport.endpoint import Endpoint
from shoal.core.transport.interrupts import Interrupts
from shoal.core.transport.loop import Loop

TOKEN = b"t" * 32
A, B = b"a" * 12, b"b" * 12
DEADLINE_S = 10


class Side:
    """An endpoint and its loop; remembers the questions it got, and answers them if told to."""

    def __init__(
        self, directory: str, me: bytes, carrier: str, token: bytes = TOKEN, background_s: float = 0.005
    ) -> None:
        self.endpoint = Endpoint(directory, me, token, carrier=carrier)
        self.dropped: list[str] = []
        self.endpoint.on_drop = lambda link, reason: self.dropped.append(reason)
        self.loop = Loop(self.endpoint, background_s=background_s)
        self.answers: dict[int, object] = {}
        self.questions: list[int] = []
        self.loop.on(m.FetchFunction, self._question)
        self.loop.on(m.Answer, lambda peer, message: self.answers.__setitem__(message.request, message.value))

    def _question(self, peer: bytes, message: m.FetchFunction) -> None:
        self.questions.append(message.request)
        self.loop.send(peer, m.Answer(message.request, message.request * 10))

    def ask(self, peer: bytes, number: int) -> None:
        self.loop.submit(lambda _: self.loop.send(peer, m.FetchFunction(number, b"key")), None)

    def close(self) -> None:
        self.loop.close()
        self.endpoint.close()


@pytest.fixture(params=["unix", "zmq"])
def carrier(request) -> str:
    return request.param


@pytest.fixture
def pair(tmp_path, carrier) -> Iterator[tuple[Side, Side]]:
    """Two sides; the second is driven by its background thread only."""
    first, second = Side(str(tmp_path), A, carrier), Side(str(tmp_path), B, carrier)
    second.loop.start_background()
    yield first, second
    first.close()
    second.close()


def test_a_waiting_thread_sends_receives_and_returns(pair):
    first, _ = pair
    first.ask(B, 1)
    assert first.loop.drive_until(lambda: 1 in first.answers, DEADLINE_S)
    assert first.answers == {1: 10}


def test_messages_arrive_in_the_order_sent(pair):
    first, second = pair
    for number in range(1000):
        first.ask(B, number)
    assert first.loop.drive_until(lambda: len(first.answers) == 1000, DEADLINE_S)
    assert second.questions == list(range(1000))


def test_a_wait_that_is_not_fulfilled_ends_in_time(pair):
    first, _ = pair
    started = time.monotonic()
    assert not first.loop.drive_until(lambda: False, 0.2)
    assert 0.2 <= time.monotonic() - started < 2


def test_the_background_thread_works_while_nobody_waits(pair):
    first, _ = pair
    first.loop.start_background()
    first.ask(B, 1)
    deadline = time.monotonic() + DEADLINE_S
    while 1 not in first.answers:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_first_few_submissions_leave_at_once_though_nobody_waits_and_no_thread_stands_by(pair):
    first, second = pair
    for number in range(loop._AT_ONCE):
        first.ask(B, number)
    deadline = time.monotonic() + DEADLINE_S
    while len(second.questions) < loop._AT_ONCE:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_who_submits_again_and_again_and_never_waits_does_not_keep_what_arrives_from_being_heard(tmp_path, carrier):
    # So long that no pause of a busy machine counts as one of ours.
    first, second = (Side(str(tmp_path), me, carrier, background_s=0.05) for me in (A, B))
    with contextlib.closing(first), contextlib.closing(second):
        second.loop.start_background()
        _submit_until_heard(first)


def _submit_until_heard(first: Side) -> None:
    first.loop.start_background()
    first.ask(B, 0)
    assert first.loop.drive_until(lambda: 0 in first.answers, DEADLINE_S)  # the background thread has let go
    first.ask(B, 1)
    for _ in range(200_000):  # counted, not timed: on a busy machine all threads are slow
        if 1 in first.answers:
            return
        first.loop.submit(lambda _: None, None)
        time.sleep(0)  # Python's lock: this is about who drives
    raise AssertionError("nobody has looked at what has arrived")


def test_a_turn_of_a_busy_event_loop_sends_its_first_answers_though_there_was_no_pause(pair):
    first, _ = pair
    sent: list[int] = []
    first.loop._flushed_at = time.monotonic() + DEADLINE_S  # it has sent something just now, however slow this test is
    for number in range(loop._AT_ONCE):
        first.loop.submit(sent.append, number)
    first.loop.submit(sent.append, 100)
    assert sent == list(range(loop._AT_ONCE)), "without a turn it gathers"
    first.loop.begin_turn()
    for number in range(loop._AT_ONCE_IN_TURN + 1):
        first.loop.submit(sent.append, number)
    assert sent[loop._AT_ONCE :] == [100, *range(loop._AT_ONCE_IN_TURN)]


def test_a_post_that_is_urgent_ends_the_wait_of_whoever_drives(pair):
    first, _ = pair
    first.loop.start_background()
    seen = []
    waits = threading.Thread(target=lambda: first.loop.drive_until(lambda: seen, DEADLINE_S))
    waits.start()
    time.sleep(0.05)
    first.loop.post(seen.append, 1)
    first.loop.soon()
    waits.join(DEADLINE_S / 2)
    assert seen


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_leaves_its_parents_background_thread_alone(pair):
    first, _ = pair
    first.loop.start_background()
    child = os.fork()
    if not child:
        standby = first.loop._background
        os._exit(getattr(getattr(standby, "_watch", None), "is_open", False))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_waiting_threads_take_turns_and_none_misses_its_answer(pair):
    first, _ = pair
    first.loop.start_background()
    missed = []

    def work(base: int) -> None:
        for number in range(base, base + 150):
            first.ask(B, number)
            if not first.loop.drive_until(lambda n=number: n in first.answers, DEADLINE_S):
                missed.append(number)
            if number % 50 == 0:
                time.sleep(0.02)  # long enough for the background thread to take over in between

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not missed
    assert len(first.answers) == 5 * 150


def test_a_thread_gets_its_answer_while_another_waits_for_long(pair):
    first, _ = pair
    first.loop.start_background()
    time.sleep(0.05)  # the background thread drives: both threads below have to take over from it
    over = []
    long_wait = threading.Thread(target=lambda: first.loop.drive_until(lambda: over, DEADLINE_S))
    long_wait.start()
    for number in range(50):
        started = time.monotonic()
        first.ask(B, number)
        assert first.loop.drive_until(lambda n=number: n in first.answers, DEADLINE_S)
        assert time.monotonic() - started < 0.5
    first.loop.submit(over.append, True)
    long_wait.join(DEADLINE_S)
    assert not long_wait.is_alive()


def test_timers_run_in_order_and_on_time(pair):
    first, _ = pair
    ran = []
    started = time.monotonic()
    first.loop.after(0.10, lambda: ran.append(("late", time.monotonic() - started)))
    first.loop.after(0.05, lambda: ran.append(("early", time.monotonic() - started)))
    assert first.loop.drive_until(lambda: len(ran) == 2, DEADLINE_S)
    assert [name for name, _ in ran] == ["early", "late"]
    assert ran[0][1] >= 0.05
    assert ran[1][1] >= 0.10
    assert time.monotonic() - started < 2, "the wait ends with the timer that fulfils it"


def test_timers_that_are_set_again_and_again_do_not_keep_it_from_what_arrives(pair):
    first, _ = pair
    until = time.monotonic() + DEADLINE_S / 2

    def again():
        time.sleep(0.001)  # longer than until it is due again
        if time.monotonic() < until:
            first.loop.after(0.0005, again)

    for _ in range(5):
        first.loop.after(0.0, again)
    first.ask(B, 7)
    assert first.loop.drive_until(lambda: first.answers, DEADLINE_S)
    assert time.monotonic() < until


def test_a_wait_that_a_post_fulfils_ends_at_once(pair):
    first, _ = pair
    seen = []
    first.loop.post(seen.append, 1)
    started = time.monotonic()
    assert first.loop.drive_until(lambda: seen, DEADLINE_S)
    assert time.monotonic() - started < 2


def test_closing_ends_every_wait(pair):
    first, _ = pair
    first.loop.start_background()
    waits = [threading.Thread(target=lambda: first.loop.drive_until(lambda: False)) for _ in range(3)]
    for wait in waits:
        wait.start()
    time.sleep(0.05)
    first.loop.post(lambda _: None, None)
    closing = threading.Thread(target=first.loop.close)
    closing.start()
    for thread in (*waits, closing):
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_what_comes_from_a_link_without_the_token_is_dropped_unread(tmp_path, pair, carrier):
    _, second = pair
    stranger = Side(str(tmp_path), b"s" * 12, carrier, token=b"x" * 32)
    stranger.ask(B, 666)
    deadline = time.monotonic() + DEADLINE_S
    while not second.dropped:
        assert time.monotonic() < deadline
        stranger.loop.flush()
    assert "token" in second.dropped[0]
    assert 666 not in second.questions
    stranger.close()


def test_garbage_on_a_link_is_dropped_and_the_link_goes_on(pair):
    first, second = pair
    first.ask(B, 1)
    assert first.loop.drive_until(lambda: 1 in first.answers, DEADLINE_S)
    first.endpoint.carrier.send(B, [b"\xc1 no msgpack"])
    first.ask(B, 2)
    assert first.loop.drive_until(lambda: 2 in first.answers, DEADLINE_S)
    assert second.dropped


def test_nothing_is_sent_to_the_dead(pair):
    first, second = pair
    first.ask(B, 1)
    assert first.loop.drive_until(lambda: 1 in first.answers, DEADLINE_S)
    first.endpoint.forget(B)
    first.ask(B, 2)
    assert not first.loop.drive_until(lambda: 2 in first.answers, 0.2)
    assert second.questions == [1]


def test_an_interrupt_waits_until_the_tables_are_whole():
    before = signal.getsignal(signal.SIGINT)
    interrupts = Interrupts()
    interrupts.install()
    steps = []
    try:
        with interrupts:
            signal.raise_signal(signal.SIGINT)
            steps.append("the handler has finished")
    except KeyboardInterrupt:
        steps.append("delivered")
    finally:
        interrupts.remove()
    assert steps == ["the handler has finished", "delivered"]
    assert signal.getsignal(signal.SIGINT) == before


def test_an_interrupt_strikes_in_poll_and_leaves_the_loop_usable(pair):
    first, _ = pair
    first.loop.start_background()
    threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        first.loop.drive_until(lambda: False, DEADLINE_S)
    assert time.monotonic() - started < 5
    first.ask(B, 7)
    assert first.loop.drive_until(lambda: 7 in first.answers, DEADLINE_S)


def test_an_interrupt_reaches_the_main_thread_while_another_drives(pair):
    first, _ = pair
    first.loop.start_background()
    over = []
    other = threading.Thread(target=lambda: first.loop.drive_until(lambda: over, DEADLINE_S))
    other.start()
    time.sleep(0.1)
    threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        first.loop.drive_until(lambda: False, DEADLINE_S)
    assert time.monotonic() - started < 3
    first.loop.submit(over.append, True)
    other.join(DEADLINE_S)
    assert not other.is_alive()


def test_waiting_inside_a_handler_is_refused(pair):
    first, _ = pair
    raised = []

    def wait_here(_: object) -> None:
        try:
            first.loop.drive_until(lambda: False, 1.0)
        except RuntimeError as error:
            raised.append(str(error))

    first.loop.post(wait_here, None)
    assert first.loop.drive_until(lambda: raised, DEADLINE_S)
    assert "callbacks" in raised[0]

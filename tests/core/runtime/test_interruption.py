"""Strikes land in user code of the task that they were meant for, once, and nowhere else."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from shoal.core.runtime import interruption
from shoal.core.runtime.interruption import Interruption

DEADLINE_S = 10.0


def runs_user_code():
    """Stands for the executor's function that calls the user's."""


class Runtime:
    """Functions that count as the runtime's own: their code says that it lies in the package."""

    def __init__(self):
        self.inside = False
        self.open = False
        source = (
            "def work(self, steps):\n"
            "    self.inside = True\n"
            "    for _ in range(steps):\n"
            "        self.step()\n"
            "    self.inside = False\n"
            "def step(self):\n"
            "    return sum(range(20))\n"
        )
        names = {}
        code = compile(source, interruption._OURS[0] + "made_for_a_test.py", "exec")
        exec(code, names)  # noqa: S102
        self.work = names["work"].__get__(self)
        self.step = names["step"].__get__(self)


@pytest.fixture
def runtime():
    return Runtime()


@pytest.fixture
def strikes(runtime):
    before = signal.getsignal(signal.SIGINT)
    made = Interruption(is_open=lambda: runtime.open, runs_user_code=runs_user_code.__code__)
    made.install()
    yield made
    made.end()
    time.sleep(0.03)  # what is on its way still finds the handler
    signal.signal(signal.SIGINT, before)


def struck(strikes, task_id, work, after_s):
    """Run `work` as a task and strike it; whether it was interrupted."""
    begun = threading.Event()

    def strike():
        begun.wait(DEADLINE_S)
        time.sleep(after_s)
        strikes.strike(task_id)

    striker = threading.Thread(target=strike)
    striker.start()  # before the task: a strike may not hit the start of a thread
    strikes.begin(task_id)
    try:
        begun.set()
        work()
    except KeyboardInterrupt:
        return True
    finally:
        strikes.end()
        striker.join()
    return False


def until_deadline(step):
    ends = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends:
        step()


def test_user_code_is_struck(strikes):
    assert struck(strikes, b"a", lambda: until_deadline(lambda: None), 0.01)


def test_user_code_that_does_nothing_but_call_the_runtime_is_struck_when_that_returns(strikes, runtime, monkeypatch):
    monkeypatch.setattr(interruption, "_PATIENCE_S", 100.0)  # on a busy machine a second may pass without a turn
    for _ in range(20):
        assert struck(strikes, b"a", lambda: until_deadline(lambda: runtime.work(100)), 0.002)
        assert not runtime.inside


def test_code_in_c_that_calls_the_runtime_for_ever_is_struck_in_the_end(strikes, runtime):
    began_s = time.monotonic()
    assert struck(strikes, b"a", lambda: any(map(runtime.work, iter(lambda: 1, 0))), 0.01)
    assert time.monotonic() - began_s < DEADLINE_S


def test_a_finaliser_does_not_swallow_a_strike(strikes):
    class Finalised:
        def __del__(self):
            sum(range(200))

    for _ in range(20):
        assert struck(strikes, b"a", lambda: until_deadline(Finalised), 0.002)


def test_the_runtime_is_struck_where_it_waits(strikes, runtime):
    def wait():
        runtime.open = True
        try:
            until_deadline(lambda: runtime.work(10))
        finally:
            runtime.open = False

    assert struck(strikes, b"a", wait, 0.01)


def test_what_has_ended_is_not_struck_and_neither_is_what_comes_after_it(strikes):
    strikes.begin(b"a")
    strikes.end()
    strikes.begin(b"b")
    strikes.strike(b"a")
    until = time.monotonic() + 0.05
    while time.monotonic() < until:
        pass
    strikes.end()


def test_each_strike_raises_once(strikes):
    count = 0
    strikes.begin(b"a")
    for _ in range(3):
        try:
            strikes.strike(b"a")
            until_deadline(lambda: None)
        except KeyboardInterrupt:
            count += 1
        time.sleep(0.03)  # an echo would raise here
    strikes.end()
    assert count == 3


def test_an_interrupt_that_the_task_sends_to_itself_strikes_it(strikes):
    strikes.begin(b"a")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    strikes.end()
    signal.raise_signal(signal.SIGINT)  # between tasks it is nobody's


@pytest.mark.parametrize("seed", range(3))
def test_random_strikes_of_short_tasks_land_within_them_or_nowhere(strikes, runtime, seed):
    """Tasks of random length, half in the runtime and half out of it, struck at random by another thread."""
    chance = random.Random(seed)
    over = threading.Event()
    current = [b""]

    def strike_at_random():
        random_here = random.Random(seed + 100)
        while not over.is_set():
            strikes.strike(current[0])
            time.sleep(random_here.random() * 0.002)

    striker = threading.Thread(target=strike_at_random)
    striker.start()
    hit = missed = 0
    try:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            task_id = chance.randbytes(4)
            current[0] = task_id
            try:
                strikes.begin(task_id)
                for _ in range(chance.randrange(50)):
                    runtime.work(chance.randrange(20))
                strikes.end()
                missed += 1
            except KeyboardInterrupt:
                strikes.end()
                hit += 1
                assert not runtime.inside
            runtime.work(chance.randrange(30))  # between two tasks
    finally:
        strikes.end()
        over.set()
        striker.join()
    assert hit > 10
    assert missed > 10

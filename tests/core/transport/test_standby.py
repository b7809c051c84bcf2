"""The background thread, and an event loop that drives, under every order of events: they and the loop as they are,
run one step at a time.

Threads are real, but only one runs at a time, and between any two bytecodes of the code under test a seeded lot may
hand over to another. The kernel's epoll, sockets, locks and the clock are stand-ins: time passes only when everybody
waits, so "soon" is an exact number, and a wake-up that is lost is a deadlock or a late answer, which fails.
"""

from __future__ import annotations

import math
import os
import random
import select
import selectors
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from shoal.core.protocol import messages as m
from shoal.core.runtime import driving_selector
from shoal.core.transport import background, loop, standby, wake_pipe

BACKGROUND_S = 0.005
#: Rest, and the rest of somebody else's who has come by in between; and the grain of `_BUSY_PER_S`.
SOON_S = 3 * BACKGROUND_S
#: Multiples of what the thread itself waits for, so that much happens at the same moment.
PAUSES_S = [pause * BACKGROUND_S for pause in (0, 1, 1, 2, 20, 50)]
TRACED = {module.__file__ for module in (background, loop, standby, wake_pipe, driving_selector)}
PEER = b"p" * 12
SEEDS_OF_EVENT_LOOPS = 8


class Turns:
    """Runs threads one at a time; a lot decides at each step who is next. Has the clock."""

    def __init__(self, seed: int, switch: float) -> None:
        self.lot = random.Random(seed)
        self.switch = switch
        self.now = 1000.0
        self.waiting: dict[Thread, tuple[Callable[[], object], float] | None] = {}
        self.current: Thread | None = None
        self.over = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        self.current = next(iter(self.waiting))
        self.current.turn.release()
        assert self.over.wait(60), "the threads hang, in real time"
        if self.failure is not None:
            raise self.failure

    def step(self, frame, event, argument):
        """What Python calls between two bytecodes."""
        if frame.f_code.co_filename not in TRACED:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and self.lot.random() < self.switch:
            self.pass_on()
        return self.step

    def wait(self, until: Callable[[], object], deadline: float = math.inf) -> bool:
        """Block the calling thread until `until()`, or the deadline; whether it was the former."""
        if not until():
            me = self.current
            self.waiting[me] = (until, deadline)
            self.pass_on()
            self.waiting[me] = None
        return bool(until())

    def pass_on(self) -> None:
        """Let somebody run who can: perhaps the caller."""
        me, self.current = self.current, self._next()
        if self.current is me:
            return
        if self.current is None:
            self.over.set()
        else:
            self.current.turn.release()
        if me is not None and me in self.waiting:
            me.turn.acquire()
            if self.failure is not None:
                raise SystemExit  # the test has failed in another thread

    def _next(self) -> Thread | None:
        while self.waiting:
            able = [thread for thread, wait in self.waiting.items() if wait is None or wait[1] <= self.now or wait[0]()]
            if able:
                return self.lot.choice(able)
            self.now = min(wait[1] for wait in self.waiting.values())
            if self.now == math.inf:
                self.failure = AssertionError(f"all threads wait for ever: {[t.name for t in self.waiting]}")
                for thread in self.waiting:
                    thread.turn.release()
                return None
        return None


class Thread:
    """In place of threading.Thread."""

    def __init__(self, turns: Turns, target: Callable[[], None], name: str) -> None:
        self.turns, self.target, self.name = turns, target, name
        self.turn = threading.Semaphore(0)

    def start(self) -> None:
        self.turns.waiting[self] = None
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.thread.start()

    def join(self) -> None:
        self.turns.wait(lambda: self not in self.turns.waiting)

    def _run(self) -> None:
        self.turn.acquire()
        try:
            if self.turns.failure is None:
                sys.settrace(self.turns.step)
                self.target()
        except BaseException as error:  # noqa: BLE001
            self.turns.failure = self.turns.failure or error
        finally:
            sys.settrace(None)
            self.turns.waiting.pop(self, None)
            if self.turns.failure is not None:
                self.turns.over.set()
            else:
                self.turns.pass_on()


class Lock:
    def __init__(self, turns: Turns) -> None:
        self.turns, self.held = turns, False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        deadline = self.turns.now + timeout if timeout >= 0 else math.inf
        if self.held and (not blocking or not self.turns.wait(lambda: not self.held, deadline)):
            return False
        self.held = True
        return True

    def release(self) -> None:
        assert self.held
        self.held = False

    def locked(self) -> bool:
        return self.held


class Condition(Lock):
    def __init__(self, turns: Turns) -> None:
        super().__init__(turns)
        self.generation = 0

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        self.release()

    def wait(self, timeout: float = math.inf) -> None:
        generation = self.generation
        self.release()
        self.turns.wait(lambda: self.generation != generation, self.turns.now + timeout)
        self.acquire()

    def notify_all(self) -> None:
        self.generation += 1


class Network:
    """In place of an endpoint, its carrier, and the kernel's epoll around that."""

    descriptor = 1 << 20
    due_at = math.inf
    pending = False

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.carrier = self
        self.arrived: deque[m.Message] = deque()
        self.pipe = -1
        self.once: dict[int, bool] = {}  # a foreign descriptor -> is to be told of
        self.armed, self.bell, self.is_open = False, 0, True

    def watch(self, descriptor: int) -> None:
        self.pipe = descriptor

    def watch_once(self, descriptor: int) -> None:
        self.once[descriptor] = True

    def watch_again(self, descriptor: int) -> None:
        self.turns.pass_on()
        self.once[descriptor] = True
        self.turns.pass_on()

    def foreign(self) -> list[int]:
        watched = [self.pipe, *(descriptor for descriptor, is_told in self.once.items() if is_told)]
        return select.select(watched, [], [], 0)[0]

    def is_ready(self) -> bool:
        return bool(self.arrived) or bool(self.foreign())

    def wait(self, timeout_s: float | None) -> list[int]:
        self.turns.wait(self.is_ready, math.inf if timeout_s is None else self.turns.now + timeout_s)
        found = self.foreign()
        self.once |= {descriptor: False for descriptor in found if descriptor in self.once}
        return found

    def receive(self):
        while self.arrived:
            yield PEER, self.arrived.popleft()

    # What `standby._Watch` does. A system call lets others run before and after it.

    def arm(self) -> None:
        self.turns.pass_on()
        self.armed = True
        self.turns.pass_on()

    def disarm(self) -> None:
        self.turns.pass_on()
        self.armed = False
        self.turns.pass_on()

    def ring(self) -> None:
        self.turns.pass_on()
        self.bell += 1
        self.turns.pass_on()

    def until(self, deadline: float) -> bool:
        self.turns.wait(lambda: self.bell or (self.armed and self.is_ready()), deadline)
        arrived = self.armed and self.is_ready()
        self.armed = self.armed and not arrived
        self.bell = 0
        self.turns.pass_on()
        return arrived


class Trial:
    """A loop with its background thread, users of it, and a notebook of who was seen to when."""

    def __init__(self, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns = turns
        clock = SimpleNamespace(monotonic=lambda: turns.now, sleep=lambda s: turns.wait(lambda: False, turns.now + s))
        threads = SimpleNamespace(
            Lock=lambda: Lock(turns),
            Condition=lambda: Condition(turns),
            Thread=lambda target, name, daemon: Thread(turns, target, name),
            get_ident=threading.get_ident,
            current_thread=lambda: turns.current,
        )
        for module in (loop, standby, driving_selector):
            monkeypatch.setattr(module, "time", clock)
        for module in (loop, background):
            monkeypatch.setattr(module, "threading", threads)
        self.network = Network(turns)
        watch = SimpleNamespace(
            open=lambda descriptor: None, close=lambda: None, is_open=True, arm=self.network.arm,
            disarm=self.network.disarm, ring=self.network.ring, wait=self.network.until,
        )  # fmt: skip
        monkeypatch.setattr(standby, "_Watch", lambda: watch)
        self.loop = loop.Loop(self.network, background_s=BACKGROUND_S)
        self.faults: list[BaseException] = []
        self.loop.on_fault = self.faults.append
        self.sleep = clock.sleep
        #: Number of a message, post or timer -> when it was to be seen to, at the latest; and those that have been.
        self.expected: dict[int, float] = {}
        self.seen: set[int] = set()
        self.late: list[tuple[str, float]] = []
        self.loop.on(m.ItemsTaken, lambda peer, message: self.see(message.count, "a message"))
        self.number = 0
        self.has_event_loop = False

    def expect(self, within_s: float) -> int:
        self.number += 1
        self.expected[self.number] = self.turns.now + within_s
        return self.number

    def see(self, number: int, what: str) -> None:
        self.seen.add(number)
        late_s = self.turns.now - self.expected.pop(number)
        if late_s > 0:
            self.late.append((what, late_s))

    def deliver(self) -> int:
        number = self.expect(SOON_S)
        self.network.arrived.append(m.ItemsTaken(b"t", number))
        return number

    def act(self, lot: random.Random) -> None:
        """Something that user code does."""
        choice = lot.choice(
            ["compute", "compute", "wait", "waits", "submit", "submits", "post", "soon", "chain", "timer", "look"]
        )
        if choice == "compute":
            self.sleep(lot.choice(PAUSES_S))
        elif choice in ("wait", "waits"):
            for _ in range(1 if choice == "wait" else 12):
                number = self.deliver() if lot.random() < 0.5 else None
                done = (lambda number=number: number in self.seen) if number else lambda: False
                self.loop.drive_until(done, None if number else lot.choice(PAUSES_S[:4]))
        elif choice in ("submit", "submits"):
            for _ in range(1 if choice == "submit" else 12):
                number = self.expect(SOON_S)
                self.loop.submit(lambda number: self.see(number, "a submission"), number)
        elif choice == "post" and not self.has_event_loop:  # it waits for as long as nothing comes
            number = self.expect(background.SLOW_S + SOON_S)
            self.loop.post(lambda number: self.see(number, "a post"), number)
        elif choice == "soon":
            number = self.expect(SOON_S)
            self.loop.post(lambda number: self.see(number, "a post that is urgent"), number)
            self.loop.soon()
        elif choice == "chain":
            number = self.expect(SOON_S)
            last = lambda: self.loop.post(lambda number: self.see(number, "a post of a post"), number)  # noqa: E731
            self.loop.submit(lambda _: self.loop.post(lambda _: last(), None), None)
        elif choice == "timer":
            delay_s = lot.choice(PAUSES_S[:4])
            number = self.expect(delay_s + 2 * SOON_S)
            self.loop.submit(lambda number: self.loop.after(delay_s, lambda: self.see(number, "a timer")), number)
        else:
            self.loop.look_in()

    def play(self, seed: int, users: int, steps: int, *, has_event_loop: bool = False, blocks_s: float = 0.0) -> None:
        """All of it; fails if anything is lost or late. User code blocks the event loop for up to `blocks_s`."""

        def use(lot: random.Random) -> None:
            for _ in range(steps):
                self.act(lot)

        def peers(lot: random.Random) -> None:
            for _ in range(2 * steps):
                self.sleep(lot.choice(PAUSES_S))
                self.deliver()

        def begin() -> None:
            self.loop.start_background()
            self.has_event_loop = has_event_loop
            events = EventLoop(self, blocks_s, is_alone=not users) if has_event_loop else None
            threads = [Thread(self.turns, lambda n=n: use(random.Random(seed + n)), f"user {n}") for n in range(users)]
            threads.append(Thread(self.turns, lambda: peers(random.Random(-seed - 1)), "peers"))
            if events is not None:
                threads.append(Thread(self.turns, lambda: events.ask(random.Random(seed - 7), steps), "askers"))
                runs = Thread(self.turns, lambda: events.run(random.Random(seed + 100)), "event loop")
                runs.start()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.turns.wait(lambda: not self.expected, self.turns.now + 1.0 + 2 * blocks_s)
            assert not self.faults
            assert not self.expected, "something has been seen to by nobody, though a second or more has passed"
            assert not self.late
            if events is not None:
                events.leave()
                runs.join()
                assert not events.faults
            self.loop.close()
            if events is not None:
                events.close()

        Thread(self.turns, begin, "main").start()
        self.turns.run()


class EventLoop:
    """In place of asyncio's: a thread that selects, begins calls, reads a pipe, and works in between."""

    def __init__(self, trial: Trial, blocks_s: float, *, is_alone: bool) -> None:
        self.trial = trial
        #: How long it is away from its selector at most, twice: calls and the pipe wait for it.
        self.busy_s = max(2 * BACKGROUND_S, blocks_s)
        self.is_alone = is_alone  # else posts wait for as long as another drives, and nothing comes
        self.calls: deque[int] = deque()
        self.unread: deque[int] = deque()
        self.faults: list[BaseException] = []
        self.selector = driving_selector.DrivingSelector(
            trial.loop, calls=self.calls, begin=self._begin, on_fault=self.faults.append
        )
        self.reads, self.writes = os.pipe()
        self.selector.register(self.reads, selectors.EVENT_READ)
        self.ident: Thread | None = None
        self.left = False
        trial.loop.on(m.FetchFunction, lambda peer, message: self._call(message.request))

    def _call(self, number: int) -> None:
        """As `AsyncLanes.start`: another thread wakes it."""
        self.calls.append(number)
        if self.trial.turns.current is not self.ident:
            os.write(self.writes, b"!")

    def _begin(self) -> None:
        while self.calls:
            self.trial.see(self.calls.popleft(), "a call")

    def ask(self, lot: random.Random, steps: int) -> None:
        """Its peers, and other threads of its process."""
        for _ in range(2 * steps):
            self.trial.sleep(lot.choice(PAUSES_S))
            number = self.trial.expect(SOON_S + 2 * self.busy_s + driving_selector._GLANCE_S)
            if lot.random() < 0.6:
                self.trial.network.arrived.append(m.FetchFunction(number, b"key"))
            else:
                self.unread.append(number)
                os.write(self.writes, b"!")

    def run(self, lot: random.Random) -> None:
        self.ident = self.trial.turns.current
        while not self.left:
            timeout_s = lot.choice([None, None, 0, 0, BACKGROUND_S])
            if self.selector.select(timeout_s):
                count = len(os.read(self.reads, 4096))
                while self.unread and count:
                    self.trial.see(self.unread.popleft(), "what can be read")
                    count -= 1
            choice = lot.random()
            if choice < 0.2:
                if self.is_alone:
                    number = self.trial.expect(standby._LOOK_UP_S + SOON_S)
                    self.trial.loop.post(lambda number: self.trial.see(number, "a post of a turn"), number)
                self.trial.sleep(lot.choice([BACKGROUND_S, self.busy_s]))
            elif choice < 0.5:
                number = self.trial.expect(SOON_S)
                self.trial.loop.submit(lambda number: self.trial.see(number, "an answer"), number)
            elif choice < 0.6:  # user code waits for something
                number = self.trial.deliver()
                self.trial.loop.drive_until(lambda number=number: number in self.trial.seen, BACKGROUND_S)
            elif timeout_s == 0:
                self.trial.sleep(driving_selector._GLANCE_S / 2)  # work takes time

    def leave(self) -> None:
        self.left = True
        os.write(self.writes, b"!")

    def close(self) -> None:
        self.selector.close()
        os.close(self.reads)
        os.close(self.writes)


@pytest.mark.parametrize("users", [0, 2])
@pytest.mark.parametrize("switch", [0.005, 0.1])
@pytest.mark.parametrize("blocks_s", [0.0, 1.5])
def test_an_event_loop_that_drives_loses_nothing_in_any_order_of_events(monkeypatch, users, switch, blocks_s):
    for seed in range(SEEDS_OF_EVENT_LOOPS):
        with monkeypatch.context() as patches:
            Trial(Turns(seed, switch), patches).play(seed, users, steps=12, has_event_loop=True, blocks_s=blocks_s)


@pytest.mark.parametrize("users", [1, 3])
@pytest.mark.parametrize("switch", [0.005, 0.1])
def test_nothing_is_lost_or_late_in_any_order_of_events(monkeypatch, users, switch):
    for seed in range(15):
        with monkeypatch.context() as patches:
            Trial(Turns(seed, switch), patches).play(seed, users, steps=12)

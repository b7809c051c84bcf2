"""The loop that drives a process's socket, and the rule of who drives it.

Only the thread that holds the drive lock touches the endpoint, the timers and the tables behind the handlers. There is
no hand-over between threads on the synchronous path, which costs 140 us of a 265 us call:

    a thread that waits (in get, or a worker without work)   drives: `drive_until(done)`
    user code that runs                                      posts: appends to a deque, no lock
    it posts, and another thread drives                      that thread is woken out of poll
    nobody has driven for `background_s`                     the background thread drives, blocked in poll
    a thread wants to wait meanwhile                         interrupts the background thread and takes the lock
    two threads wait                                         one drives, the other sleeps on a condition and is
                                                             told after each tick

What crosses threads: `post(function, argument)` appends to a deque; the entry belongs to the driver from then on. What
is posted waits for the next tick, as counts of references can; `submit` also wakes whoever drives, or ticks itself when
nobody does, for submissions. A bare id in the deque is an entry too, for the one thing that happens most often: a ref
has died (`on_id`).

Signals: a KeyboardInterrupt may strike the main thread between any two instructions. While handlers run, SIGINT is held
back (interrupts.py) and delivered in poll or when the driver leaves.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from ..protocol.messages import Message
from .endpoint import Endpoint
from .interrupts import Interrupts

Handler = Callable[[bytes, Any], None]

#: Longest sleep of the background thread in poll: how long posts that are not urgent may wait while user code runs.
_BACKGROUND_POLL_S = 0.1
#: A poster flushes by itself when this many posts wait; bounds the deque and keeps batches near the size where the
#: cost per batch vanishes.
_POSTS_PER_FLUSH = 64
#: How long to wait for the background thread to leave before looking again who drives; it needs one tick.
_HAND_OVER_S = 0.01
#: How often a wait looks up for a signal that arrived just before it, or in another thread.
_SIGNAL_CHECK_S = 1.0


class Loop:
    """Sockets, timers and posted calls of one process, driven by one thread at a time."""

    def __init__(
        self, endpoint: Endpoint, *, background_s: float, on_background: Callable[[], None] | None = None
    ) -> None:
        """
        Args:
          background_s: idle time after which the background thread takes over.
          on_background: called, with the drive lock held, each time it does: user code has run that long.
        """
        self._endpoint = endpoint
        self._background_s = background_s
        self._on_background = on_background
        self._handlers: dict[type[Message], Handler] = {}
        self._drive = threading.Lock()
        self._driver = 0  # ident of the thread that holds it
        self._in_poll = False
        self.posts: deque[tuple[Callable[[Any], None], Any] | bytes] = deque()
        #: What is to be called with each bare id among the posts.
        self.on_id: Callable[[bytes], None] = lambda object_id: None
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = count()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._carrier = endpoint.carrier
        self._carrier.watch(self._wake_read)
        self._watched: dict[int, Callable[[], None]] = {}
        self._before_flush: Callable[[], None] = lambda: None
        self._driven_at = 0.0
        self._flushed_at = 0.0
        self._closed = False
        #: Called when something raises in the background thread, which then ends.
        self.on_fault: Callable[[BaseException], None] = lambda error: None
        self._interrupts = Interrupts()
        # Waiting threads that do not drive.
        self._progress = threading.Condition()
        self._waiting = 0
        # The background thread.
        self._background: threading.Thread | None = None
        self._background_drives = False
        self._background_asleep = False
        self._background_wake = threading.Condition()
        self._wanted = 0
        self._woken = False

    # ---- for whoever builds the process

    def on(self, kind: type[Message], handler: Handler) -> None:
        """Call `handler(peer, message)` for each message of this type."""
        self._handlers[kind] = handler

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call `ready` when the file descriptor can be read. Before the loop is driven, or by its driver."""
        self._watched[descriptor] = ready
        self._carrier.watch(descriptor)

    def unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._carrier.unwatch(descriptor)

    def before_flush(self, decide: Callable[[], None]) -> None:
        """Call `decide` after each round of posts and messages, before what they have queued is sent: for decisions
        over many events.
        """
        self._before_flush = decide

    def start_background(self) -> None:
        """Start the thread that drives while user code runs. A process that lives in the loop needs none."""
        self._interrupts.install()
        self._background = threading.Thread(target=self._stand_by, name="shoal-io", daemon=True)
        self._background.start()

    def close(self) -> None:
        """Stop the background thread and close the wake pipe; the endpoint is its owner's. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        _write_byte(self._wake_write)
        with self._background_wake:
            self._background_wake.notify_all()
        with self._progress:
            self._progress.notify_all()
        if self._background is not None and self._background is not threading.current_thread():
            self._background.join()
        self._interrupts.remove()
        nested = self._driver == threading.get_ident()
        if not nested:
            self._drive.acquire()  # whoever drives leaves at the next tick, and nobody comes after it
        os.close(self._wake_read)
        os.close(self._wake_write)
        if not nested:
            self._drive.release()

    # ---- for any thread

    def post(self, function: Callable[[Any], None], argument: Any) -> None:
        """Have the driver call `function(argument)` at the next tick, whenever that is. Never blocks, never fails."""
        self.posts.append((function, argument))

    def submit(self, function: Callable[[Any], None], argument: Any) -> None:
        """`post`, for what must reach the wire soon: wakes the background thread, or flushes when nobody drives."""
        self.posts.append((function, argument))
        if self._drive.locked():
            self._wake()
        elif len(self.posts) >= _POSTS_PER_FLUSH or time.monotonic() - self._flushed_at > 0.001:
            # The first post after a pause goes out at once, those that follow gather: the caller may be about to wait,
            # and will flush them itself, or post a thousand more.
            self.flush()

    def flush(self) -> None:
        """Work off posts and messages now, or have the thread that drives do so."""
        with self._interrupts:
            if self._acquire():
                try:
                    if not self._closed:
                        self._tick(0.0)
                finally:
                    self._release()
            elif self.posts:
                self._wake()

    def drive_until(self, done: Callable[[], Any], timeout_s: float | None = None) -> bool:
        """Wait until `done()` is true; the calling thread does the process's I/O meanwhile.

        `done` is called after every tick and must be cheap; what it looks at is changed only by handlers.

        Returns:
          False when `timeout_s` has passed first. None waits for ever: the caller knows that an event must come.
        """
        if done():
            return True
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._closed:
            with self._interrupts:
                if self._driver == threading.get_ident():
                    self._drive_again(done, deadline)
                elif self._take_drive(done, deadline):
                    try:
                        self._drive_here(done, deadline)
                    finally:
                        self._release()
            if done():
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return bool(done())

    def _drive_here(self, done: Callable[[], Any], deadline: float | None) -> None:
        """Tick until `done`, the deadline or the loop's end. With the drive lock held."""
        while not done() and not self._closed:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                self._tick(0.0)
                return
            self._tick(left, done)

    def _drive_again(self, done: Callable[[], Any], deadline: float | None) -> None:
        """Wait within a wait of the same thread: a signal handler has interrupted poll and uses the API itself."""
        if not self._in_poll:
            raise RuntimeError("shoal cannot wait inside one of its own callbacks; start a thread or a task for that")
        try:
            self._drive_here(done, deadline)
        finally:
            self._in_poll = True  # we return into the outer one

    @property
    def driven_here(self) -> bool:
        """Whether the calling thread is the driver."""
        return self._driver == threading.get_ident()

    @property
    def is_open(self) -> bool:
        """Whether the main thread waits here, ready for SIGINT."""
        return self._interrupts.is_open

    # ---- for the driver (handlers, posted calls)

    def send(self, peer: bytes, message: Message) -> None:
        """Queue a message; it leaves at the end of the tick."""
        self._endpoint.send(peer, message)

    def after(self, delay_s: float, function: Callable[[], None]) -> None:
        """Call `function` once, `delay_s` from now."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._timer_numbers), function))

    def hear_out(self, peer: bytes) -> None:
        """Handle what a dead peer sent before it died. From a post or a watched descriptor, not from a handler."""
        for sender, message in self._endpoint.hear_out(peer):
            self._handlers[type(message)](sender, message)

    # ---- who drives

    def _take_drive(self, done: Callable[[], Any], deadline: float | None) -> bool:
        """Get the drive lock, or wait until `done`, a time-out, or the driver's leaving. True: we hold the lock."""
        if self._acquire():
            return True
        if self._background_drives:
            # `_wanted` keeps the background thread from taking the lock again before we have it.
            self._wanted += 1
            try:
                self._wake()
                # Not for longer: a third thread may have been quicker, and drive for hours with our answer in hand.
                patience_s = _HAND_OVER_S if deadline is None else max(0.0, deadline - time.monotonic())
                return self._acquire(min(patience_s, _HAND_OVER_S))
            finally:
                self._wanted -= 1
        with self._progress:
            self._waiting += 1
            try:
                # The driver looks at `_waiting` after every tick and when it leaves, and tells us under the condition's
                # lock, which we hold until we sleep: a change between this check and the wait cannot be missed.
                if not done() and self._drive.locked():
                    if self.posts:
                        self._wake()  # what we wait for may begin with them
                    left = _SIGNAL_CHECK_S if deadline is None else max(0.0, deadline - time.monotonic())
                    self._interrupts.open()
                    try:
                        self._progress.wait(min(left, _SIGNAL_CHECK_S))
                    finally:
                        self._interrupts.shut()
            finally:
                self._waiting -= 1
        return False

    def _acquire(self, timeout_s: float = 0.0) -> bool:
        if self._drive.acquire(timeout=timeout_s) if timeout_s else self._drive.acquire(blocking=False):
            self._driver = threading.get_ident()
            return True
        return False

    def _release(self) -> None:
        self._driven_at = time.monotonic()
        self._driver = 0
        self._drive.release()
        if self._waiting:
            with self._progress:
                self._progress.notify_all()
        if self._background_asleep:
            with self._background_wake:
                self._background_wake.notify()

    def _stand_by(self) -> None:
        """The background thread: drive when nobody has for a while."""
        while not self._closed:
            with self._background_wake:
                # Set before we look at the lock: `_release` unlocks before it looks at this, so one of the two sees the
                # other.
                self._background_asleep = True
                if self._drive.locked() and not self._closed:
                    # somebody waits in the loop, perhaps for hours; `_release` and `close` wake us
                    self._background_wake.wait()
                # Not to be woken again by each of a thousand calls that follow (10 us each): first sleep below.
                self._background_asleep = False
            idle = time.monotonic() - self._driven_at
            if idle < self._background_s or self._wanted:
                time.sleep(max(self._background_s - idle, 0.0005))
                continue
            if self._acquire():
                self._background_drives = True
                try:
                    if self._on_background is not None:
                        self._on_background()
                    while not self._must_yield():
                        self._tick(_BACKGROUND_POLL_S)
                except BaseException as error:
                    # A fault of ours. A thread that waits gets it from its call; here it would be lost with the thread.
                    self.on_fault(error)
                    raise
                finally:
                    self._background_drives = False
                    self._release()

    def _must_yield(self) -> bool:
        return self._closed or self._wanted > 0

    def _wake(self) -> None:
        """End the driver's wait in poll. Once is enough until it has been noticed."""
        if self._woken or self._closed:
            return
        self._woken = True
        _write_byte(self._wake_write)

    # ---- one tick

    def _tick(self, timeout_s: float | None, done: Callable[[], Any] | None = None) -> None:
        """Posts, timers, sending; wait for something; receiving, posts, sending. With the drive lock held.

        Args:
          timeout_s: longest wait; None waits for ever.
          done: what the caller waits for; posts and timers may bring it about, and then there is nothing to wait for.
        """
        posts = self.posts
        if posts:
            self._work_off_posts()
        if self._timers:
            timeout_s = self._run_timers(timeout_s)
        self._before_flush()
        if self._endpoint.pending:
            self._endpoint.flush()
            self._flushed_at = time.monotonic()
        if posts or (done is not None and done()):
            timeout_s = 0.0
        ready = self._poll(timeout_s)
        if ready is None:
            return
        if ready:
            self._hear_watched(ready)
        handlers = self._handlers
        for peer, message in self._endpoint.receive():
            handlers[type(message)](peer, message)
        if posts:
            self._work_off_posts()
        self._before_flush()
        if self._endpoint.pending:
            self._endpoint.flush()
        if self._waiting:
            with self._progress:
                self._progress.notify_all()

    def _hear_watched(self, ready: Sequence[int]) -> None:
        for descriptor in ready:
            if descriptor == self._wake_read:
                # In this order: a poster that still sees the flag has posted before the tick works the posts off; one
                # that sees it cleared writes a byte that is not drained here.
                self._drain_wake_pipe()
                self._woken = False
            elif descriptor in self._watched:
                self._watched[descriptor]()

    def _poll(self, timeout_s: float | None) -> Sequence[int] | None:
        """Wait for the sockets, open to SIGINT; returns the watched descriptors that are ready, None after `close`."""
        if timeout_s == 0.0:
            return self._carrier.wait(0.0)
        self._in_poll = True
        if self._interrupts.installed:
            # A signal between the last bytecode and the system call is seen only after it: look up once a second.
            timeout_s = _SIGNAL_CHECK_S if timeout_s is None else min(timeout_s, _SIGNAL_CHECK_S)
        try:
            self._interrupts.open()
            return self._carrier.wait(timeout_s)
        except (OSError, ValueError):
            if self._closed:  # by a signal handler, in the middle of our wait
                return None
            raise
        finally:
            self._in_poll = False
            self._interrupts.shut()

    def _work_off_posts(self) -> None:
        posts, on_id = self.posts, self.on_id
        # Not `while posts`: another thread that posts without end must not keep us from the sockets.
        for _ in range(len(posts)):
            entry = posts.popleft()
            if isinstance(entry, bytes):
                on_id(entry)
            else:
                function, argument = entry
                function(argument)

    def _run_timers(self, timeout_s: float | None) -> float | None:
        """Run what is due; returns the time to the next timer if that is sooner than `timeout_s`."""
        while self._timers:
            left = self._timers[0][0] - time.monotonic()
            if left > 0:
                return left if timeout_s is None else min(left, timeout_s)
            heapq.heappop(self._timers)[2]()
        return timeout_s

    def _drain_wake_pipe(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass  # another wake's bytes were read together with ours


def _write_byte(descriptor: int) -> None:
    try:
        os.write(descriptor, b"\0")
    except OSError:
        pass  # the pipe is full, so the poll will end; or it has been closed, so nobody polls

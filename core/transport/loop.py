"""The loop that drives a process's socket, and the rule of who drives it.

Only the thread that holds the drive lock touches the endpoint, the timers and the tables behind the handlers. There is
no hand-over between threads on the synchronous path, which costs 140 us of a 265 us call:

    a thread that waits (in get, or a worker without work)   drives: `drive_until(done)`
    user code that runs                                      posts: appends to a deque, no lock
    it posts, and another thread drives                      that thread is woken out of poll
    nobody has driven for `background_s`                     the background thread does what there is to do
                                                             (background.py: how, and when it wakes)
    a thread wants to wait meanwhile                         takes the lock when the background thread lets go of it
    two threads wait                                         one drives, the other sleeps on a condition and is
                                                             told after each tick

What crosses threads: `post(function, argument)` appends to a deque; the entry belongs to the driver from then on. What
is posted waits for the next tick, as counts of references can. `soon` asks for one within `background_s`; `submit`, for
submissions, wakes whoever drives, or sends itself when nobody does. A bare id in the deque is an entry too, for the one
thing that happens most often: a ref has died (`on_id`).

Signals: a KeyboardInterrupt may strike the main thread between any two instructions. While handlers run, SIGINT is held
back (interrupts.py) and delivered in poll or when the driver leaves.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..protocol.messages import Message
from .background import Background
from .endpoint import Endpoint
from .interrupts import Interrupts
from .standby import Standby
from .takeover import Takeover
from .timers import Timers
from .wake_pipe import WakePipe

Handler = Callable[[bytes, Any], None]

#: A poster flushes by itself when this many posts wait; bounds the deque and keeps batches near the size where the
#: cost per batch vanishes.
_POSTS_PER_FLUSH = 64
#: So many submissions go out one by one, if nothing has been sent for so long.
_AT_ONCE = 8
_PAUSE_S = 0.001
#: So many of those that one turn of an event loop makes go out one by one, however busy it is.
_AT_ONCE_IN_TURN = 2
#: How long to wait for the background thread to leave before looking again who drives; it needs one tick.
_HAND_OVER_S = 0.01
#: How often a wait looks up for a signal that arrived just before it, or in another thread.
_SIGNAL_CHECK_S = 1.0


class Loop:
    """Sockets, timers and posted calls of one process, driven by one thread at a time."""

    def __init__(self, endpoint: Endpoint, *, background_s: float) -> None:
        """
        Args:
          background_s: for how long the background thread leaves everything to user code that comes by again.
        """
        self._endpoint = endpoint
        self._background_s = background_s
        self._handlers: dict[type[Message], Handler] = {}
        self._drive = threading.Lock()
        self._driver = 0  # ident of the thread that holds it
        self._in_poll = False
        self.posts: deque[tuple[Callable[[Any], None], Any] | bytes] = deque()
        #: What is to be called with each bare id among the posts.
        self.on_id: Callable[[bytes], None] = lambda object_id: None
        self._timers = Timers()
        self._soon_at = math.inf
        self._carrier = endpoint.carrier
        self._wake_pipe = WakePipe()
        self._carrier.watch(self._wake_pipe.descriptor)
        self._watched: dict[int, Callable[[], None]] = {}
        self._before_flush: Callable[[], None] = lambda: None
        self._flushed_at = 0.0
        self._submitted = 0  # since the last pause
        self.is_closed = False
        #: Called when something raises in the background thread, which then ends.
        self.on_fault: Callable[[BaseException], None] = lambda error: None
        self._interrupts = Interrupts()
        # Waiting threads that do not drive.
        self._progress = threading.Condition()
        self._waiting = 0
        # What the background thread goes by.
        #: When anybody let go of the drive last who had looked at what has arrived; when somebody did who had waited,
        #: or comes by again (monotonic).
        self.driven_at = self.left_at = 0.0
        #: How often somebody has blocked in poll.
        self.waits = 0
        self._has_blocked = False
        #: An event loop drives, whenever it has nothing to do: who lets go of the drive comes by again before long.
        self.has_turns = False
        self._due_at: Callable[[], float] = lambda: math.inf
        self._on_background: Callable[[], None] = lambda: None
        self._background_drives = False
        self._wanted = 0
        descriptor = self._carrier.descriptor
        self._background: Background = (
            Takeover(self, background_s) if descriptor is None else Standby(self, background_s, descriptor)
        )

    # ---- for whoever builds the process

    def on(self, kind: type[Message], handler: Handler) -> None:
        """Call `handler(peer, message)` for each message of this type."""
        self._handlers[kind] = handler

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call `ready` when the file descriptor can be read. Before the loop is driven, or by its driver."""
        self._watched[descriptor] = ready
        self._carrier.watch(descriptor)

    @property
    def can_watch_once(self) -> bool:
        """Whether there are `watch_once` and `watch_again`: where the carrier is one descriptor."""
        return self._carrier.descriptor is not None

    def watch_once(self, descriptor: int, ready: Callable[[], None]) -> None:
        """As `watch`, but `ready` is called only once, until `watch_again`."""
        self._watched[descriptor] = ready
        self._carrier.watch_once(descriptor)

    def watch_again(self, descriptor: int) -> None:
        """Call `ready` once more: at once, if the descriptor can be read. In any thread."""
        try:
            self._carrier.watch_again(descriptor)
        except (OSError, ValueError):  # the process is about to end
            if not self.is_closed:
                raise

    def unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._carrier.unwatch(descriptor)

    def before_flush(self, decide: Callable[[], None]) -> None:
        """Call `decide` after each round of posts and messages, before what they have queued is sent: for decisions
        over many events.
        """
        self._before_flush = decide

    def while_user_code_runs(self, due_at: Callable[[], float], look: Callable[[], None]) -> None:
        """Call `look`, as the driver, in each round of the background thread; `due_at()` is when it wants that next,
        at the latest (monotonic; in any thread). `soon` says that this may be sooner than it was.
        """
        self._due_at = due_at
        self._on_background = look

    def start_background(self) -> None:
        """Start the thread that drives while user code runs. A process that lives in the loop needs none."""
        self._interrupts.install()
        self._background.start()

    def close(self) -> None:
        """Stop the background thread and close the wake pipe; the endpoint is its owner's. Twice is harmless."""
        if self.is_closed:
            return
        self.is_closed = True
        self._wake_pipe.wake()
        with self._progress:
            self._progress.notify_all()
        self._background.close()
        self._interrupts.remove()
        nested = self._driver == threading.get_ident()
        if not nested:
            self._drive.acquire()  # whoever drives leaves at the next tick, and nobody comes after it
        self._wake_pipe.close()
        if not nested:
            self._drive.release()

    # ---- for any thread

    def post(self, function: Callable[[Any], None], argument: Any) -> None:
        """Have the driver call `function(argument)` at the next tick, whenever that is. Never blocks, never fails."""
        self.posts.append((function, argument))

    def submit(self, function: Callable[[Any], None], argument: Any) -> None:
        """`post`, for what must reach the wire soon: wakes who drives, or sends it itself when nobody does."""
        self.posts.append((function, argument))
        if self._drive.locked():
            self._wake_pipe.wake()
            return
        # The first few after a pause go out at once: they may be all, and to have the background thread send the second
        # costs both threads more. Those that follow gather: a thousand more may come, or the caller is about to wait.
        if time.monotonic() - self._flushed_at > _PAUSE_S:
            self._submitted = 0
        self._submitted += 1
        if len(self.posts) >= _POSTS_PER_FLUSH:
            self.look_in()  # more will come: the background thread has no need to compete with them
        elif self._submitted <= _AT_ONCE:
            self._say_now()
        else:
            self._call_by(self.left_at + self._background_s)

    def begin_turn(self) -> None:
        """An event loop that drives this one, and looks in again when its turn is over, begins one. Its first answers
        go out at once: else each of a thousand requests a second would ring for the background thread, 60 us, for
        nothing.
        """
        self._submitted = min(self._submitted, _AT_ONCE - _AT_ONCE_IN_TURN)

    def soon(self) -> None:
        """What has been posted, and what `due_at` knows, is to be seen to within `background_s`."""
        if self._drive.locked():
            self._wake_pipe.wake()
        else:
            self._call_by(time.monotonic() + self._background_s)

    def _call_by(self, due_at: float) -> None:
        if due_at < self._soon_at:  # else somebody has called before us, and is heard
            self._soon_at = due_at  # two threads may both be about to write: they differ by less than `background_s`
            self._background.hurry(due_at)

    def look_in(self) -> None:
        """`flush`, by somebody who comes by again before long: the background thread leaves what arrives meanwhile to
        them, for `background_s`.
        """
        self.flush()
        self.left_at = time.monotonic()

    def flush(self, patience_s: float = 0.0) -> None:
        """Work off posts and messages now, or have the thread that drives do so, if it has not left within so long."""
        with self._interrupts:
            if self._acquire(patience_s):
                try:
                    if not self.is_closed:
                        self._tick(0.0)
                finally:
                    self._release()
            elif self.posts:
                self._wake_pipe.wake()

    def _say_now(self) -> None:
        """`flush`, without a look at what has arrived: who submits waits before long, or is answered while its code
        runs, which the background thread sees to.
        """
        with self._interrupts:
            if self._acquire():
                try:
                    if not self.is_closed:
                        self._say()
                finally:
                    self._release(has_heard=False)
            elif self.posts:
                self._wake_pipe.wake()

    def drive_until(self, done: Callable[[], Any], timeout_s: float | None = None) -> bool:
        """Wait until `done()` is true; the calling thread does the process's I/O meanwhile.

        `done` is called after every tick and must be cheap; what it looks at is changed only by handlers.

        Returns:
          False when `timeout_s` has passed first. None waits for ever: the caller knows that an event must come.
        """
        is_done = bool(done())
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not is_done and not self.is_closed:
            with self._interrupts:
                if self._driver == threading.get_ident():
                    is_done = self._drive_again(done, deadline)
                elif self._take_drive(done, deadline):
                    try:
                        is_done = self._drive_here(done, deadline)
                    finally:
                        self._release()
            # The last look of who has driven counts; others have not looked since they were told.
            is_done = is_done or bool(done())
            if deadline is not None and time.monotonic() >= deadline:
                break
        return is_done

    def _drive_here(self, done: Callable[[], Any], deadline: float | None) -> bool:
        """Tick until `done`, the deadline or the loop's end; returns whether it is done. With the drive lock held."""
        while not self.is_closed:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                self._tick(0.0)
                return bool(done())
            self._tick(left, done)  # it looks, too, before it waits
            if done():
                return True
        return False

    def _drive_again(self, done: Callable[[], Any], deadline: float | None) -> bool:
        """Wait within a wait of the same thread: a signal handler has interrupted poll and uses the API itself."""
        if not self._in_poll:
            raise RuntimeError("shoal cannot wait inside one of its own callbacks; start a thread or a task for that")
        try:
            return self._drive_here(done, deadline)
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

    # ---- for the background thread

    @property
    def is_driven(self) -> bool:
        """Whether somebody drives."""
        return self._drive.locked()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for the background thread to let go of the drive."""
        return self._wanted > 0

    def due_at(self) -> float:
        """When a tick is needed even if nothing arrives (monotonic); infinity: not."""
        return min(self._soon_at, self._timers.next_at, self._carrier.due_at, self._due_at())

    def drive_in_background(self, timeout_s: float) -> None:
        """Drive, unless somebody else does: as long as there are posts; with `timeout_s`, until somebody wants it."""
        if not self._acquire():
            return
        self._background_drives = True
        try:
            while not self.is_closed:
                self._on_background()
                self._tick(min(timeout_s, max(0.0, self.due_at() - time.monotonic())) if timeout_s else 0.0)
                if self._wanted or not (timeout_s or self.posts):
                    break
        finally:
            self._background_drives = False
            self._release()

    # ---- for the driver (handlers, posted calls)

    def send(self, peer: bytes, message: Message) -> None:
        """Queue a message; it leaves at the end of the tick."""
        self._endpoint.send(peer, message)

    def after(self, delay_s: float, function: Callable[[], None]) -> None:
        """Call `function` once, `delay_s` from now."""
        self._timers.add(time.monotonic() + delay_s, function)

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
                self._wake_pipe.wake()
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
                        self._wake_pipe.wake()  # what we wait for may begin with them
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

    def _release(self, *, has_heard: bool = True) -> None:
        now = time.monotonic()
        if has_heard:
            self.driven_at = now
        if self._has_blocked:
            self._has_blocked = False
            self.left_at = now
        if self.posts:
            self._soon_at = min(self._soon_at, now + self._background_s)  # the last tick has made them
        self._driver = 0
        self._drive.release()
        if self._waiting:
            with self._progress:
                self._progress.notify_all()
        self._background.left()

    # ---- one tick

    def _tick(self, timeout_s: float | None, done: Callable[[], Any] | None = None) -> None:
        """Posts, timers, sending; wait for something; receiving, posts, sending. With the drive lock held.

        Args:
          timeout_s: longest wait; None waits for ever.
          done: what the caller waits for; posts and timers may bring it about, and then there is nothing to wait for.
        """
        self._soon_at = math.inf  # first: who asks from here on is not served by this tick
        if self.posts:
            self._work_off_posts()
        if self._timers.next_at < math.inf:
            timeout_s = self._run_timers(timeout_s)
        self._say()
        if self.posts or (done is not None and done()):
            timeout_s = 0.0
        ready = self._poll(timeout_s)
        if ready is None:
            return
        if ready:
            self._hear_watched(ready)
        handlers = self._handlers
        for peer, message in self._endpoint.receive():
            handlers[type(message)](peer, message)
        self._say()
        if self._waiting:
            with self._progress:
                self._progress.notify_all()

    def _say(self) -> None:
        """Work off posts, decide, and send what there is to be sent."""
        if self.posts:
            self._work_off_posts()
        self._before_flush()
        if self._endpoint.pending:
            self._endpoint.flush()
            self._flushed_at = time.monotonic()

    def _hear_watched(self, ready: Sequence[int]) -> None:
        for descriptor in ready:
            if descriptor == self._wake_pipe.descriptor:
                self._wake_pipe.drain()
            elif descriptor in self._watched:
                self._watched[descriptor]()

    def _poll(self, timeout_s: float | None) -> Sequence[int] | None:
        """Wait for the sockets, open to SIGINT; returns the watched descriptors that are ready, None after `close`."""
        if timeout_s == 0.0:
            return self._carrier.wait(0.0)
        self._in_poll = True
        self._has_blocked = True
        self.waits += 1
        self._background.blocks()
        if self._interrupts.installed:
            # A signal between the last bytecode and the system call is seen only after it: look up once a second.
            timeout_s = _SIGNAL_CHECK_S if timeout_s is None else min(timeout_s, _SIGNAL_CHECK_S)
        try:
            self._interrupts.open()
            return self._carrier.wait(timeout_s)
        except (OSError, ValueError):
            if self.is_closed:  # by a signal handler, in the middle of our wait
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
        now = time.monotonic()
        while self._timers.next_at <= now:  # what they set for now waits: else nothing would be read meanwhile
            self._timers.pop()()
        if self._timers.next_at == math.inf:
            return timeout_s
        left = max(0.0, self._timers.next_at - time.monotonic())
        return left if timeout_s is None else min(left, timeout_s)

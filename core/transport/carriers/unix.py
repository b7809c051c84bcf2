"""Frames over Unix sockets: the carrier within one machine. No thread but the caller's, one epoll for everything.

    process A  --connect-->  directory/<B>.sock, B listens      one link serves both directions
    B accepts: NEW --hello--> OPEN          A: (CONNECTING ->) OPEN          either: --end of stream--> gone

A link that A opens begins with A's hello. B answers over the link that it has; if both open one at the same moment,
each keeps sending over its own. Which link a process sends over is decided at its first batch to that peer and does not
change, so the order in one direction is that of the stream.

What the kernel does not take waits in the link's outbox, and epoll is asked to tell when there is room. Each ready
link is read once per round, so a peer that sends without end has no more than its turn.

Deaths: the kernel closes the sockets of a process that dies, and its peers read the end of the stream after the last
byte that it has sent: `on_lost`. A batch that is cut off there is dropped. Writing to the dead is no error: what
matters is read at the end of the stream. Nothing here asks who is alive, and a dead peer costs nothing.

SOCK_STREAM and not SOCK_SEQPACKET: the round trip is the same within 5 % (43 and 41 us of 150 bytes, both processors
asleep in between), packets would need a bound and a second level of framing, and one `recv` brings many batches.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from ...errors import ProtocolError
from .base import Admit, Frames, socket_path
from .framing import Assembler, Batch, prefix

#: Read at once from a link. One more than fits beside it in 128 KiB and the allocator would map memory for each.
_READ_BYTES = 64 * 1024
#: Asked of the kernel for what is under way to a peer; it gives at most its own bound (wmem_max).
_SEND_BUFFER_BYTES = 1 << 20
#: Batches up to this size are joined and sent by one plain call; above, the buffers are sent from where they are.
_JOIN_BYTES = 16 * 1024
#: Buffers for one call of sendmsg; the kernel's bound is 1024.
_BUFFERS_PER_CALL = 512
#: What a link sends at most, once there is room again, before others have their turn.
_SEND_BYTES_PER_TURN = 4 << 20
#: Links looked at in one round. The kernel puts those that it has told of behind the others.
_LINKS_PER_ROUND = 64
#: A link that has not been admitted may say this much: a hello.
_HELLO_BYTES = 512
#: When the other side accepts more slowly than processes connect, or we have no descriptor left: the next try.
_RETRY_S = 0.005

#: Of epoll, which not every system has that imports this module.
_IN, _OUT, _ERR, _HUP, _ONCE = 1, 4, 8, 16, 1 << 30


class _Link:
    """A connection. `peer` is empty until the hello of who opened it has been read."""

    __slots__ = ("assembler", "connecting", "fileno", "outbox", "peer", "sock")

    def __init__(self, sock: socket.socket, peer: bytes) -> None:
        self.sock = sock
        self.fileno = sock.fileno()
        self.peer = peer
        self.connecting = False
        self.outbox: deque[memoryview] = deque()
        self.assembler = Assembler() if peer else Assembler(first_bytes=_HELLO_BYTES)


class UnixCarrier:
    """The sockets of one process. See `base.Carrier`."""

    def __init__(self, directory: str, me: bytes, *, hello: bytes, admit: Admit) -> None:
        """Listens at ``directory/<me>.sock``; only the user may enter the directory.

        Args:
          hello: the header frame that every link of ours begins with.
        """
        self._directory = directory
        self._hello = prefix([hello]) + hello
        self._admit = admit
        self._path = socket_path(directory, me)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(self._path)
        self._listener.listen(socket.SOMAXCONN)
        self._listening = True
        self._epoll = select.epoll()
        self.descriptor = self._epoll.fileno()
        self._epoll.register(self._listener, _IN)
        self._foreign: set[int] = set()
        self._ready: list[tuple[int, int]] = []
        self._links: dict[int, _Link] = {}  # by descriptor
        self._links_of: dict[bytes, list[_Link]] = {}
        self._sending: dict[bytes, _Link] = {}  # the one that we send over
        self._connecting: list[_Link] = []
        self._tried_at = 0.0
        self.on_drop: Callable[[bytes, str], None] = lambda peer, reason: None
        self.on_lost: Callable[[bytes], None] = lambda peer: None
        _carriers.add(self)

    # ---- waiting

    def watch(self, descriptor: int) -> None:
        self._foreign.add(descriptor)
        self._epoll.register(descriptor, _IN)

    def watch_once(self, descriptor: int) -> None:
        self._foreign.add(descriptor)
        self._epoll.register(descriptor, _IN | _ONCE)

    def watch_again(self, descriptor: int) -> None:
        self._epoll.modify(descriptor, _IN | _ONCE)

    def unwatch(self, descriptor: int) -> None:
        self._foreign.discard(descriptor)
        self._epoll.unregister(descriptor)

    @property
    def due_at(self) -> float:
        return self._tried_at + _RETRY_S if self._connecting or not self._listening else math.inf

    def wait(self, timeout_s: float | None) -> Sequence[int]:
        if self._connecting or not self._listening:
            self._try_again()
            if self._connecting or not self._listening:
                timeout_s = _RETRY_S if timeout_s is None else min(timeout_s, _RETRY_S)
        # Not `self._ready` at once: a signal handler may come back into here while we wait.
        ready = self._epoll.poll(timeout_s, _LINKS_PER_ROUND)
        foreign = self._foreign
        if len(ready) == 1 and ready[0][0] not in foreign:
            self._ready = ready
            return ()
        found = [descriptor for descriptor, _ in ready if descriptor in foreign]
        self._ready = [event for event in ready if event[0] not in foreign] if found else ready
        return found

    # ---- sending

    def send(self, peer: bytes, frames: Frames) -> bool:
        link = self._sending.get(peer) or self._open(peer)
        if link is None:
            return False
        if len(frames) == 1 or sum(map(len, frames)) <= _JOIN_BYTES:
            data = prefix(frames) + frames[0] if len(frames) == 1 else b"".join((prefix(frames), *frames))
            if link.outbox:
                link.outbox.append(memoryview(data))
                return True
            try:
                sent = link.sock.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except (BrokenPipeError, ConnectionResetError):
                return True  # it is dead, or about to close: we shall read the end of its stream
            if sent < len(data):
                link.outbox.append(memoryview(data)[sent:])
                self._epoll.modify(link.fileno, _IN | _OUT)
        elif link.outbox:
            link.outbox.extend(map(memoryview, (prefix(frames), *frames)))
        else:
            link.outbox.extend(map(memoryview, (prefix(frames), *frames)))
            self._write_on(link)
            if link.outbox:  # not before: that there is room would count as an event, and wake who waits for events
                self._epoll.modify(link.fileno, _IN | _OUT)
        return True

    def _write_on(self, link: _Link) -> None:
        """Send from the outbox, a turn's worth, as far as there is room."""
        outbox, turn_bytes = link.outbox, _SEND_BYTES_PER_TURN
        try:
            while outbox and turn_bytes > 0:
                sent = link.sock.sendmsg(list(islice(outbox, _BUFFERS_PER_CALL)), (), socket.MSG_NOSIGNAL)
                turn_bytes -= sent
                while outbox and sent >= len(outbox[0]):
                    sent -= len(outbox.popleft())
                if sent:
                    outbox[0] = outbox[0][sent:]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            outbox.clear()

    def _open(self, peer: bytes) -> _Link | None:
        """Connect; None when nobody listens: the process has died, or lived in another session."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        link = _Link(sock, peer)
        try:
            listens = self._connect(link)
        except BaseException:
            sock.close()
            raise
        if not listens:
            sock.close()
            return None
        if link.connecting:
            self._connecting.append(link)
        self._links[link.fileno] = self._sending[peer] = link
        self._links_of.setdefault(peer, []).append(link)
        return link

    def _connect(self, link: _Link) -> bool:
        """Connect, now or (`connecting`) when the other side has accepted those before us. False: nobody listens."""
        try:
            link.sock.connect(socket_path(self._directory, link.peer))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            if not link.connecting:
                link.connecting = True
                link.outbox.append(memoryview(self._hello))
            return True
        if link.connecting:  # with the hello in its outbox
            link.connecting = False
            self._epoll.register(link.fileno, _IN | _OUT)
        else:
            self._epoll.register(link.fileno, _IN)
            # An empty stream takes it. That the other has died before it could accept is told by the end of the stream.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                link.sock.send(self._hello, socket.MSG_NOSIGNAL)
        return True

    def _try_again(self) -> None:
        self._tried_at = time.monotonic()
        connecting, self._connecting = self._connecting, []
        for link in connecting:
            if not self._connect(link):
                self._end(link)
            elif link.connecting:
                self._connecting.append(link)
        if not self._listening:
            self._listening = True
            self._epoll.register(self._listener, _IN)

    # ---- receiving

    def receive(self) -> Iterator[tuple[bytes, Frames]]:
        ready, self._ready = self._ready, []
        for descriptor, events in ready:
            link = self._links.get(descriptor)
            if link is None:
                # The listener; or a link that has been ended since, by what came over another.
                if descriptor == self._listener.fileno():
                    self._accept()
                continue
            if events & _OUT:
                self._write_on(link)
                if not link.outbox:
                    self._epoll.modify(link.fileno, _IN)
            if events & (_IN | _HUP | _ERR):
                batches = self._read(link)
                if batches is None:
                    self._end(link)
                else:
                    for frames in batches:
                        yield link.peer, frames

    def hear_out(self, peer: bytes) -> Iterator[tuple[bytes, Frames]]:
        for link in list(self._links_of.get(peer, ())):
            # The dead send nothing new, so this ends; what they have forked may hold their sockets open.
            while not link.connecting and _is_ready(link.sock, select.POLLIN, 0.0):
                batches = self._read(link)
                if batches is None:
                    break
                for frames in batches:
                    yield peer, frames

    def _read(self, link: _Link) -> list[Batch] | None:
        """One read: the batches that it completes, without the hello. None: the stream has ended, or is of no use."""
        assembler = link.assembler
        try:
            target = assembler.target
            if target is not None:
                count = link.sock.recv_into(target)
                batches = assembler.filled(count)
            else:
                data = link.sock.recv(_READ_BYTES)
                count = len(data)
                batches = assembler.feed(data)
        except BlockingIOError:
            return []
        except ConnectionResetError:  # it closed with something of ours unread; all that it sent has been read
            count = 0
            batches = []
        except ProtocolError as error:
            self.on_drop(link.peer, str(error))
            return None
        if not count:
            if not assembler.is_whole:
                self.on_drop(link.peer, "it ended in the middle of a batch")
            return None
        if not link.peer and batches:
            return self._welcome(link, batches)
        return batches

    def _welcome(self, link: _Link, batches: list[Batch]) -> list[Batch] | None:
        """The first batch over a link that a peer has opened must be its hello. None: it is not."""
        peer = self._admit(batches[0])
        if peer is None:
            return None
        link.peer = peer
        self._links_of.setdefault(peer, []).append(link)
        self._sending.setdefault(peer, link)
        return link.assembler.go_on()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:
                # No descriptor or no memory. The listener would be ready at once again: look later.
                self._listening = False
                self._epoll.unregister(self._listener)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            link = _Link(sock, b"")
            self._links[link.fileno] = link
            self._epoll.register(link.fileno, _IN)

    # ---- ends

    def _end(self, link: _Link) -> None:
        """Close one link; the peer whose last it was is lost."""
        self._close_link(link)
        links = self._links_of.get(link.peer)
        if links is None:
            return  # it has never said who it is
        links.remove(link)
        if self._sending.get(link.peer) is link:
            del self._sending[link.peer]
        if not links:
            del self._links_of[link.peer]
            self.on_lost(link.peer)

    def _close_link(self, link: _Link) -> None:
        self._links.pop(link.fileno, None)
        if link.connecting:
            if link in self._connecting:
                self._connecting.remove(link)
        else:
            self._epoll.unregister(link.fileno)
        link.sock.close()

    def forget(self, peer: bytes) -> None:
        self._sending.pop(peer, None)
        for link in self._links_of.pop(peer, ()):
            self._close_link(link)

    def close(self, linger_s: float) -> None:
        deadline = time.monotonic() + linger_s
        for link in list(self._links.values()):
            while link.outbox and not link.connecting and (left := deadline - time.monotonic()) > 0:
                if _is_ready(link.sock, select.POLLOUT, left):
                    self._write_on(link)
        _carriers.discard(self)
        self.drop_descriptors()
        with contextlib.suppress(FileNotFoundError):  # the session's directory may have been removed already
            os.unlink(self._path)

    def drop_descriptors(self) -> None:
        """Close everything, quietly. In a forked child too, where nothing else may be done: the epoll and the streams
        are its parent's.
        """
        for link in self._links.values():
            link.sock.close()
        self._links.clear()
        self._links_of.clear()
        self._sending.clear()
        self._listener.close()
        self._epoll.close()


def _is_ready(sock: socket.socket, event: int, timeout_s: float) -> bool:
    poll = select.poll()  # select would refuse descriptors from 1024 on
    poll.register(sock, event)
    return bool(poll.poll(timeout_s * 1000))


#: The carriers of this process. A child that user code forks must not hold their sockets: peers would miss the end of
#: the stream when we die.
_carriers: weakref.WeakSet[UnixCarrier] = weakref.WeakSet()


def _drop_all_in_fork() -> None:
    for carrier in list(_carriers):
        carrier.drop_descriptors()
    _carriers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_all_in_fork)

"""Frames over zmq: one ROUTER per process, for systems without epoll.

    process A                                   process B
    ROUTER bound at A's address  <-----link---  ROUTER
    ROUTER  ------link---------------------->   bound at B's address

A ROUTER both binds and connects, so a process polls one socket however many peers it has. A link that we opened is
known here as ``>`` + peer, one that the peer opened as ``=`` + peer: both may exist without clashing. Which one `send`
uses for a peer is decided at the first batch and never changes, so that batches in one direction stay in order.

zmq does not tell of links that end: `on_lost` is never called. Each process has two threads of zmq beside its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .base import Admit, Frames, socket_path

if TYPE_CHECKING:
    import zmq

_OURS = b">"
_THEIRS = b"="
#: Batches received in one round.
_BATCHES_PER_ROUND = 64


class ZmqCarrier:
    """The ROUTER of one process. See `base.Carrier`."""

    def __init__(self, directory: str, me: bytes, *, hello: bytes, admit: Admit) -> None:
        """Binds ``directory/<me>.sock``.

        Args:
          hello: the header frame that every link of ours begins with.
        """
        import zmq  # 20 ms, and only who chooses this carrier needs it

        self._zmq = zmq
        self._directory = directory
        self._hello = hello
        self._admit = admit
        self._context = zmq.Context(io_threads=1)
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTING_ID, _THEIRS + me)
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            self._socket.setsockopt(option, 0)  # a ROUTER at its high-water mark drops messages
        # A peer's socket exists before anyone learns its name, and a Unix socket breaks only when the peer dies.
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._path = socket_path(directory, me)
        self._socket.bind(f"ipc://{self._path}")
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._links: dict[bytes, bytes] = {}
        self._opened: dict[bytes, str] = {}
        self._authenticated: set[bytes] = set()
        self.descriptor = None  # zmq's own tells of changes only, and of those only to who asks the socket each time
        self.due_at = math.inf
        self.on_drop: Callable[[bytes, str], None] = lambda peer, reason: None
        self.on_lost: Callable[[bytes], None] = lambda peer: None

    def watch(self, descriptor: int) -> None:
        self._poller.register(descriptor, self._zmq.POLLIN)

    def watch_once(self, descriptor: int) -> None:
        raise NotImplementedError("needs a carrier that is one descriptor")

    def watch_again(self, descriptor: int) -> None:
        raise NotImplementedError("needs a carrier that is one descriptor")

    def unwatch(self, descriptor: int) -> None:
        self._poller.unregister(descriptor)

    def wait(self, timeout_s: float | None) -> Sequence[int]:
        try:
            # Rounded up to whole milliseconds, so that a timer is due when we return.
            ready = self._poller.poll(None if timeout_s is None else max(0, int(timeout_s * 1000 + 0.999)))
        except self._zmq.ZMQError as error:
            raise OSError(error.errno, str(error)) from error
        return [source for source, _ in ready if source is not self._socket]

    def send(self, peer: bytes, frames: Frames) -> bool:
        link = self._links.get(peer) or self._open(peer)
        if link is None:
            return False
        self._socket.send_multipart([link, *frames])
        return True

    def receive(self) -> Iterator[tuple[bytes, Frames]]:
        for _ in range(_BATCHES_PER_ROUND):
            try:
                link, *frames = self._socket.recv_multipart(self._zmq.NOBLOCK)
            except self._zmq.Again:
                return
            if link in self._authenticated:
                yield link[1:], frames
            elif self._admit(frames) == link[1:]:
                self._authenticated.add(link)
                self._links.setdefault(link[1:], link)

    def hear_out(self, peer: bytes) -> Iterator[tuple[bytes, Frames]]:
        yield from ()  # one queue for all peers: what is left of this one cannot be told from the rest

    def forget(self, peer: bytes) -> None:
        self._authenticated.discard(_THEIRS + peer)
        self._links.pop(peer, None)
        address = self._opened.pop(peer, None)
        if address is not None:
            try:
                self._socket.disconnect(address)
            except self._zmq.ZMQError:
                # zmq has noticed the broken connection first, and without reconnecting it forgets the address by itself
                pass

    def close(self, linger_s: float) -> None:
        self._socket.setsockopt(self._zmq.LINGER, int(linger_s * 1000))
        self._socket.close()
        self._context.term()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass  # the session's directory has been removed already, which is what we want

    def _open(self, peer: bytes) -> bytes | None:
        """Connect; None when the peer has no socket: it has died, or lived in another session."""
        link = _OURS + peer
        path = socket_path(self._directory, peer)
        if not os.path.exists(path):
            return None
        address = f"ipc://{path}"
        self._socket.setsockopt(self._zmq.CONNECT_ROUTING_ID, link)
        self._socket.connect(address)
        self._opened[peer] = address
        self._links[peer] = link
        # We chose the address, in a directory that only our user can enter: the other side needs no hello for us.
        self._authenticated.add(link)
        self._socket.send_multipart([link, self._hello])
        return link

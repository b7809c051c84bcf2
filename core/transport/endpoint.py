"""One socket per process, through which it speaks to every other.

    process A                                   process B
    ROUTER bound at A's address  <-----link---  ROUTER
    ROUTER  ------link---------------------->   bound at B's address

A ROUTER both binds and connects, so a process polls one socket however many peers it has. A link that we opened is
known here as ``>`` + peer, one that the peer opened as ``=`` + peer: both may exist without clashing. Which one `send`
uses for a peer is decided at the first message and never changes, so that messages in one direction stay in order.

Messages to a peer wait in a box until `flush`: one multipart per peer per tick, however many messages. Boxes and kernel
queues have no bound of their own; what bounds them are the windows of the layers above (tasks per lease, calls per
actor).

Security: addresses are Unix sockets in a directory that only the user can enter, and each link that a peer opens must
begin with the session's token. What comes over a link that has not shown it is dropped before any of it is acted on;
only its msgpack header is parsed, which runs no code.

Not here: threads (the `Loop` owns the endpoint), what messages mean, who is alive.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from ..errors import ProtocolError
from ..protocol import codec
from ..protocol.messages import Hello, Message

#: Peers are named by their 12-byte worker id; the head has a name of its own.
HEAD = b"shoal-head\0\0"

_OURS = b">"
_THEIRS = b"="


def socket_name(peer: bytes) -> str:
    """File name of a peer's socket within the session's directory."""
    return "head.sock" if peer == HEAD else f"{peer.hex()}.sock"


class Endpoint:
    """The process's socket. Every method is called by whoever drives the loop, one thread at a time."""

    def __init__(self, directory: str, me: bytes, token: bytes) -> None:
        """Binds ``directory/<me>.sock``; sockets of peers are looked for in the same directory."""
        self._directory = directory
        self._token = token
        self.me = me
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTING_ID, _THEIRS + me)
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            self._socket.setsockopt(option, 0)  # a ROUTER at its high-water mark drops messages; see the bounds above
        # A peer's socket exists before anyone learns its name, and a Unix socket breaks only when the peer dies.
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._path = os.path.join(directory, socket_name(me))
        self._socket.bind(f"ipc://{self._path}")
        self._links: dict[bytes, bytes] = {}
        self._opened: dict[bytes, str] = {}
        self._authenticated: set[bytes] = set()
        self._dead: set[bytes] = set()
        self._boxes: dict[bytes, list[Message]] = {}
        #: Called with a link and the reason when something that came over it is dropped.
        self.on_drop: Callable[[bytes, str], None] = lambda link, reason: None
        #: Called with a peer that does not exist (any more), once. What was to be sent to it is dropped.
        self.on_unreachable: Callable[[bytes], None] = lambda peer: None

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """For polling only."""
        return self._socket

    @property
    def pending(self) -> bool:
        """Whether messages wait for `flush`."""
        return bool(self._boxes)

    def send(self, peer: bytes, message: Message) -> None:
        """Put a message in the peer's box. A peer known to be dead gets nothing: its death has been announced."""
        box = self._boxes.get(peer)
        if box is None:
            if peer in self._dead:
                return
            self._boxes[peer] = [message]
        else:
            box.append(message)

    def flush(self) -> None:
        """Send every box."""
        boxes, self._boxes = self._boxes, {}
        for peer, batch in boxes.items():
            link = self._links.get(peer) or self._open(peer)
            if link is None:
                self._dead.add(peer)
                self.on_unreachable(peer)
            else:
                self._socket.send_multipart([link, *codec.encode(batch)])

    def receive(self, limit: int = 64) -> Iterator[tuple[bytes, Message]]:
        """What has arrived, as (peer, message), at most `limit` batches."""
        for _ in range(limit):
            try:
                link, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            peer = link[1:]
            if peer in self._dead:
                continue
            try:
                batch = codec.decode(frames)
            except ProtocolError as error:
                self.on_drop(link, str(error))
                continue
            if link not in self._authenticated:
                if not self._admit(link, batch):
                    continue
                del batch[0]
            for message in batch:
                yield peer, message

    def forget(self, peer: bytes) -> None:
        """The peer is dead: drop its links and its box, for good (ids are never used again)."""
        self._dead.add(peer)
        self._boxes.pop(peer, None)
        self._authenticated.discard(_THEIRS + peer)
        self._links.pop(peer, None)
        address = self._opened.pop(peer, None)
        if address is not None:
            try:
                self._socket.disconnect(address)
            except zmq.ZMQError:
                # zmq has noticed the broken connection first, and without reconnecting it forgets the address by itself
                pass

    def close(self, linger_s: float = 0.0) -> None:
        """Send what is left for at most `linger_s`, close, and remove the socket file."""
        self._socket.setsockopt(zmq.LINGER, int(linger_s * 1000))
        self._socket.close()
        self._context.term()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass  # the session's directory has been removed already, which is what we want

    def _open(self, peer: bytes) -> bytes | None:
        """Connect; None when the peer has no socket: it has died, or lived in another session."""
        link = _OURS + peer
        path = Path(self._directory, socket_name(peer))
        if not path.exists():
            return None
        address = f"ipc://{path}"
        self._socket.setsockopt(zmq.CONNECT_ROUTING_ID, link)
        self._socket.connect(address)
        self._opened[peer] = address
        self._links[peer] = link
        # We chose the address, in a directory that only our user can enter: the other side needs no Hello for us.
        self._authenticated.add(link)
        self._socket.send_multipart([link, *codec.encode([Hello(self._token)])])
        return link

    def _admit(self, link: bytes, batch: list[Message]) -> bool:
        hello = batch[0] if batch else None
        if not (isinstance(hello, Hello) and isinstance(hello.token, bytes)) or not hmac.compare_digest(
            hello.token, self._token
        ):
            self.on_drop(link, "it did not begin with the session's token")
            return False
        self._authenticated.add(link)
        self._links.setdefault(link[1:], link)
        return True

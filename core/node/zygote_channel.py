"""The channel between head and zygote: a pair of sockets that keep message borders. Neither waits for the other.

    tell --> outbox --there is room--> channel --> receive

A process that blocked in `send` until the other has read could wait for ever: the other may be busy, or block likewise.
And nothing ends a session whose zygote does not see that its driver has died. So what finds no room waits in an
`Outbox`, in order, and whoever owns it comes again: the zygote when poll says that there is room, the head after a
while, for its loop watches descriptors only for what can be read.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Sequence

from ..protocol import codec
from ..protocol.messages import Message

#: Largest message between head and zygote: an id and an environment (environments.LIMIT_BYTES).
_PACKET_BYTES = 64 * 1024
#: That come with one: a worker's stdout and stderr.
_MOST_DESCRIPTORS = 2


def channel() -> tuple[socket.socket, socket.socket]:
    """A pair of sockets that keep message borders, for the head and the zygote."""
    kind = (
        socket.SOCK_SEQPACKET
        if hasattr(socket, "SOCK_SEQPACKET") and os.uname().sysname == "Linux"
        else socket.SOCK_DGRAM
    )
    return socket.socketpair(socket.AF_UNIX, kind)


def send_now(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> bool:
    """Send one message, and copies of descriptors, if there is room for it; whether there was. To the dead, nothing:
    a head without its zygote is next, and a zygote ends the session when it reaps its head.
    """
    try:
        # Not socket.send_fds: it takes flags and forgets them.
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        sock.sendmsg(codec.encode([message])[:1], rights, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError):
        return True
    return True


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message, and descriptors that came with it; None when the other side is gone."""
    try:
        packet, descriptors, _, _ = socket.recv_fds(sock, _PACKET_BYTES, _MOST_DESCRIPTORS)
    except ConnectionResetError:
        return None, []  # it ended with messages of ours unread
    return (codec.decode([packet])[0] if packet else None), descriptors


class Outbox:
    """What one side has to tell the other.

    Args:
      sock: Its end of the channel; the caller's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waiting: deque[tuple[Message, Sequence[int]]] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether all has been sent."""
        return not self._waiting

    def tell(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send it, if nothing waits and there is room.

        Args:
          descriptors: Copies go along; ours are closed.
        """
        self._waiting.append((message, descriptors))
        if len(self._waiting) == 1:
            self.send_on()

    def send_on(self) -> None:
        """Send what there is room for."""
        while self._waiting:
            message, descriptors = self._waiting[0]
            if not send_now(self._sock, message, descriptors):
                return
            self._waiting.popleft()
            for descriptor in descriptors:
                os.close(descriptor)

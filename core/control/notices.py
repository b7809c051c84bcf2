"""What is reported once in a session: the head remembers which causes have been told, and has drivers print them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..protocol import messages as m
from ..transport.loop import Loop

#: Causes that are remembered; when there are more, the oldest may be told again.
_REMEMBERED = 1_000


class NoticeBoard:
    """Passes each cause on once."""

    def __init__(self, loop: Loop, drivers: Callable[[], Iterable[bytes]]) -> None:
        self._loop = loop
        self._drivers = drivers
        self._told: dict[str, None] = {}
        loop.on(m.Notice, self._notice)

    def _notice(self, peer: bytes, message: m.Notice) -> None:
        if message.cause in self._told:
            return
        self._told[message.cause] = None
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        for driver in self._drivers():
            self._loop.send(driver, message)

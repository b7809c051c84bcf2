"""How a process looks beyond itself: asks what goes on elsewhere, and tells what nobody would ask for in time.

    survey     a question to the head, and through it to every process or one (inspecting.py answers there)
    reason     along the chain of what some objects wait for (reasons.py)
    drive      a wait in get or wait, that is reported when nothing will end it (notices.py)
    measured   what user code has measured, every half second in which it has, in case the process is killed

In any thread, but for what the loop calls.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..config import CoreConfig
from ..observing.measures import MEASURES
from ..protocol import messages as m
from ..refs import ObjectRef
from ..transport.endpoint import HEAD
from ..transport.loop import Loop
from . import context
from .fullness import held_by
from .history import History, Row
from .holdings import Holdings
from .notices import WaitWatch
from .objects import Wait
from .questions import Question
from .reasons import Reason, reason_of

if TYPE_CHECKING:
    import asyncio

#: How old the head's knowledge of a worker's measures may be.
_MEASURED_S = 0.5


class Outlook:
    """Of one process."""

    def __init__(
        self,
        loop: Loop,
        *,
        ask: Callable[..., Any],
        lost: Callable[[], object],
        history: History,
        holdings: Holdings,
        config: CoreConfig,
    ) -> None:
        """
        Args:
          ask: `Process.ask`.
          lost: whether the session is.
        """
        self._loop = loop
        self._ask = ask
        self._lost = lost
        self._history = history
        self._holdings = holdings
        self._config = config
        holdings.on_awaited = self._on_awaited
        loop.on(m.Notice, self._on_notice)

    def survey(
        self, question: Question, *, unless: Callable[[], Any] = lambda: False
    ) -> tuple[list[Row], dict[bytes, list[Row]], list[str], bool]:
        """Ask the head, and through it processes, what goes on (`inspecting.py`).

        Args:
          question: its timeout counts if it is less than `survey_timeout_s`.
          unless: give up, with nothing, as soon as this is true.

        Returns:
          Rows of the head; rows by process; who was silent, in words; whether these are all rows.
        """
        subject, key, limit = question.subject, question.key, question.limit
        asked = b"" if question.target is None else question.target or HEAD
        patience_s = self._config.survey_timeout_s
        if question.timeout_s is not None:
            patience_s = min(patience_s, question.timeout_s)
        answer = self._ask(lambda number: m.Survey(number, subject, key, asked, limit, patience_s), unless=unless)
        facts, answers, silent = answer if answer is not None else ([], [], [])
        return (
            facts,
            {process: rows for process, rows, _ in answers},
            [f"worker {process.hex()}" for process in silent],
            all(is_all for _, _, is_all in answers),
        )

    def reason(self, wanted: Sequence[tuple[bytes, bytes]], *, unless: Callable[[], Any] = lambda: False) -> Reason:
        """Why the objects (id, owner) are not there; asks along the chain, until `unless` is true."""

        def ask(subject: str, key: bytes, target: bytes) -> list[Row] | None:
            facts, answers, _, _ = self.survey(Question(subject, key, target), unless=unless)
            return answers.get(target) if target else facts

        return reason_of(ask, wanted)

    def held_by(self) -> str:
        """Who holds what of the object store, in words."""
        facts, answers, _, _ = self.survey(Question("store"))
        orphaned = sum(row["orphaned_bytes"] for row in facts if "orphaned_bytes" in row)
        return held_by([row for rows in answers.values() for row in rows], orphaned)

    def drive(self, verb: str, wait: Wait, watched: Sequence[tuple[bytes, bytes]], timeout_s: float | None) -> None:
        """Until `wait` is done, the session is lost, or the time is up; reports waits that nothing will end."""
        notice_s = self._config.notice_s

        def over() -> object:
            return wait.done or self._lost()

        def why() -> Reason:
            pending = [ref for ref in watched if self._holdings.objects.value(ref[0]) is None]
            return self.reason(pending, unless=over)

        if notice_s <= 0 or (timeout_s is not None and timeout_s <= notice_s):
            self._loop.drive_until(over, timeout_s)
            return
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        watch = WaitWatch(verb, notice_s, self._notice)
        while not over():
            left_s = watch.interval_s if ends is None else min(watch.interval_s, ends - time.monotonic())
            if self._loop.drive_until(over, left_s) or (ends is not None and time.monotonic() >= ends):
                return
            watch.look(why)

    def _on_awaited(self, ref: ObjectRef, future: asyncio.Future[Any]) -> None:
        task = context.current()
        if task is not None:
            number = self._history.begin_wait("get", task.task_id, [(ref.binary(), ref.owner)])
            future.add_done_callback(lambda _: self._history.end_wait(number))

    def _notice(self, cause: str, words: str) -> None:
        self._loop.post(lambda _: self._loop.send(HEAD, m.Notice(cause, words)), None)

    def measured(self) -> None:
        """User code has measured something, in any thread: the head shall know of it soon, should this process die."""
        self._loop.submit(lambda _: self._loop.after(_MEASURED_S, self.tell_measured), None)

    def tell_measured(self) -> None:
        """Tell the head now."""
        self._loop.send(HEAD, m.Measured(MEASURES.rows()))

    def _on_notice(self, peer: bytes, message: m.Notice) -> None:
        sys.stderr.write(f"shoal: {message.words}\n")

"""ActorPool: hands values to whichever of some actors is free, and gives the results back.

    submit(fn, value) --> an idle actor?  yes: fn(actor, value) at once      no: it waits in line
    get_next*()       --> the actor is idle again; the first in line goes to it

`fn` calls a method of the actor it is given and returns the ref; the actor counts as busy until that result has been
asked for. Everything happens inside the calls of whoever holds the pool: there is no thread, so what waits in line
moves only when results are taken. One pool belongs to one thread.

Invariants: an actor is idle or has at most one result outstanding here (two after a result was given up on); every
submission comes out exactly once, as a result or as an error, unless it was given up on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from ..api import ActorHandle, get, wait
from ..errors import ActorDiedError
from ..refs import ObjectRef

V = TypeVar("V")

#: What the function of a submission returns: a ref, or the refs of a method with several returns.
Future: TypeAlias = "ObjectRef[Any] | list[ObjectRef[Any]]"
Function: TypeAlias = Callable[[ActorHandle, V], Future]


@dataclass(slots=True)
class _Outstanding:
    """A submission on its way: where it runs and what it will give; or the error of its function, which is raised in
    place of a result.
    """

    actor: ActorHandle | None
    future: Future
    error: BaseException | None = None

    def refs(self) -> list[ObjectRef[Any]]:
        return self.future if isinstance(self.future, list) else [self.future]


class ActorPool(Generic[V]):
    """Spread work over a fixed set of actors.

    Example:
      >>> @shoal.remote
      ... class Doubler:
      ...     def double(self, value):
      ...         return 2 * value
      >>> pool = ActorPool([Doubler.remote(), Doubler.remote()])
      >>> list(pool.map(lambda actor, value: actor.double.remote(value), [1, 2, 3]))
      [2, 4, 6]
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle = list(actors)
        self._outstanding: dict[int, _Outstanding] = {}  # by number of submission, ascending
        self._line: deque[tuple[Function[V], V]] = deque()
        self._submitted = 0
        #: `get_next` gives this one, or the next after it.
        self._next = 0
        #: Why the pool has fewer actors than it was given, until another is pushed.
        self._death: ActorDiedError | None = None

    def map(self, fn: Function[V], values: Iterable[V]) -> Iterator[Any]:
        """Results of ``fn(actor, value)`` in the order of `values`.

        Work begins with the call; but what waits in line goes out only as the results are read. Results of earlier
        submissions that nobody has taken, their errors too, are given up.

        Args:
          fn: (actor, value) -> ref of the result.
          values: read to the end at once.
        """
        self._begin(fn, values)
        return self._results(self.get_next)

    def map_unordered(self, fn: Function[V], values: Iterable[V]) -> Iterator[Any]:
        """As `map`, each result as soon as it is there."""
        self._begin(fn, values)
        return self._results(self.get_next_unordered)

    def submit(self, fn: Function[V], value: V) -> None:
        """Run ``fn(actor, value)`` on an idle actor now, or on the next that gets idle.

        Raises:
          TypeError: `fn` returned no ref. Of a submission that has to wait in line, `get_next` raises it.
        """
        if not self._idle:
            self._line.append((fn, value))
            return
        actor = self._idle.pop()
        try:
            future = _checked(fn(actor, value))
        except BaseException:
            self._idle.append(actor)
            raise
        self._record(_Outstanding(actor, future))

    def has_next(self) -> bool:
        """Whether there are results that nobody has taken, there already or still to come."""
        return bool(self._outstanding) or self._is_stranded()

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:  # noqa: FBT001, FBT002  Ray's signature
        """The result of the earliest submission whose result has not been taken.

        Args:
          timeout: seconds to wait for it; None: as long as it takes.
          ignore_if_timedout: give up on the submission when its time is over, so that the next call gives the one after
            it. Its actor counts as idle from then on.

        Raises:
          StopIteration: there is nothing to wait for.
          TimeoutError: it was not there in time.
          ValueError: `get_next_unordered` has taken a later one: there is no order any more.
          TaskError, ActorDiedError: as ``get`` of the result. An actor that has died leaves the pool.
        """
        self._check_not_empty()
        if self._next >= self._submitted:
            raise ValueError("get_next cannot follow get_next_unordered: a later result has been taken already")
        item = self._outstanding[self._next]
        if timeout is not None and item.error is None:
            refs = list(dict.fromkeys(item.refs()))
            if wait(refs, num_returns=len(refs), timeout=timeout)[1]:
                self._time_out(self._next, give_up=ignore_if_timedout)
        return self._take(self._next)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:  # noqa: FBT001, FBT002  Ray's signature
        """Whichever result is there first; arguments and errors as of `get_next`. What is given up on when the time is
        over is the earliest submission.
        """
        self._check_not_empty()
        failed = next((number for number, item in self._outstanding.items() if item.error is not None), None)
        if failed is not None:
            return self._take(failed)
        # The last of several returns: they come together, and `get` waits for a straggler.
        numbers = {item.refs()[-1]: number for number, item in self._outstanding.items()}
        ready, _ = wait(list(numbers), timeout=timeout)
        if not ready:
            self._time_out(next(iter(self._outstanding)), give_up=ignore_if_timedout)
        return self._take(numbers[ready[0]])

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits in line."""
        return bool(self._idle) and not self._line

    def pop_idle(self) -> ActorHandle | None:
        """Take an idle actor out of the pool; None if none is."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor.

        Raises:
          ValueError: it is in the pool already.
        """
        if actor in self._idle or any(item.actor == actor for item in self._outstanding.values()):
            raise ValueError(f"{actor!r} is in the pool already")
        self._death = None
        self._give_back(actor)

    # ---- inside

    def _begin(self, fn: Function[V], values: Iterable[V]) -> None:
        while self._outstanding:
            number, item = next(iter(self._outstanding.items()))
            if item.error is None and not wait([item.refs()[-1]], timeout=0)[0]:
                self._give_up(number)
                continue
            try:
                self._take(number)
            except Exception:  # noqa: BLE001  results given up include errors; an actor that died has left
                pass
        self._line.clear()  # only a pool without actors has any left
        for value in values:
            self.submit(fn, value)

    def _results(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def _record(self, item: _Outstanding) -> None:
        self._outstanding[self._submitted] = item
        self._submitted += 1

    def _check_not_empty(self) -> None:
        if self._outstanding:
            return
        if self._is_stranded():
            self._line.popleft()
            raise ActorDiedError(
                "the submission was not run: all actors of the pool have died; push() another. The last to die: "
                f"{self._death}"
            ) from self._death
        raise StopIteration("there are no more results to get")

    def _is_stranded(self) -> bool:
        """Whether something waits in line that no actor will take. Not in a pool that was emptied by `pop_idle`:
        that is for its owner to refill.
        """
        return bool(self._line) and not self._idle and self._death is not None

    def _take(self, number: int) -> Any:
        """The result of a submission, once it is there. Its actor is free then, or out of the pool."""
        item = self._outstanding[number]
        try:
            if item.error is not None:
                raise item.error
            result = get(item.future)
        except ActorDiedError as error:
            self._drop(number)
            self._death = error
            self._start_waiting()
            raise
        except Exception:
            self._drop(number)
            self._give_back(item.actor)
            raise
        self._drop(number)
        self._give_back(item.actor)
        return result

    def _time_out(self, number: int, *, give_up: bool) -> None:
        if give_up:
            self._give_up(number)
            raise TimeoutError(f"submission {number} had no result in time and is given up; its actor may still run it")
        raise TimeoutError("no result in time")

    def _give_up(self, number: int) -> None:
        actor = self._drop(number).actor
        self._give_back(actor)

    def _drop(self, number: int) -> _Outstanding:
        self._next = max(self._next, number + 1)
        return self._outstanding.pop(number)

    def _give_back(self, actor: ActorHandle | None) -> None:
        if actor is not None:
            self._idle.append(actor)
        self._start_waiting()

    def _start_waiting(self) -> None:
        """Start what waits in line, as far as there are idle actors.

        A function that raises here must not take the result with it that is just being returned: its error waits for
        its own turn.
        """
        while self._line and self._idle:
            fn, value = self._line.popleft()
            try:
                self.submit(fn, value)
            except Exception as error:  # noqa: BLE001  user code; raised by the get_next of its submission
                self._record(_Outstanding(None, [], error))


def _checked(future: object) -> Any:
    refs = future if isinstance(future, list) else [future]
    if not refs or not all(isinstance(ref, ObjectRef) for ref in refs):
        raise TypeError(
            f"the function of a submission returns the ObjectRef that actor.method.remote(...) gives, not {future!r}"
        )
    return future

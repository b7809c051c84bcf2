"""What inline work comes to: the objects of its returns, made when it is submitted and resolved when it is over.

a number of returns     an object each; a failure is the value of them all
a generator's items     an object each, made at the end; a failure is one more item
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ... import ids
from ...generators import DynamicObjectRefGenerator, ObjectRefGenerator
from ...options import STREAMING
from ...refs import ObjectRef
from ...serialization import values
from ...serialization.values import FAILURE, Serialized
from ..base import Returns
from .objects import InlineObjects
from .streams import InlineStream, WaitForRefs
from .work import Work


class Results:
    """Objects of work."""

    def __init__(
        self, objects: InlineObjects, *, wait: WaitForRefs, settled: Callable[[ObjectRef], Future[Any]]
    ) -> None:
        """
        Args:
          wait, settled: for the consumers of generators.
        """
        self._objects = objects
        self._wait = wait
        self._settled = settled

    def expected(self, work: Work, count: int) -> Returns:
        """New work's refs, or the generator of them."""
        work.num_returns = count
        work.returns = [ids.object_id(work.task_id, index) for index in range(1 if count < 0 else count)]
        for object_id in work.returns:
            self._objects.expect(object_id)
        refs = [owned_ref(object_id) for object_id in work.returns]
        if count == STREAMING:
            work.stream = InlineStream(refs[0], wait=self._wait, settled=self._settled)
            return ObjectRefGenerator(work.stream)
        return refs

    def resolve(self, work: Work, results: list[Serialized]) -> None:
        """What it makes is there: each its own value, or one failure for all."""
        failed = len(results) == 1 and results[0].kind == FAILURE
        if work.num_returns < 0:
            self.resolve_items(work, [], results[0] if failed else None)
            return
        for index, object_id in enumerate(work.returns):
            self._objects.resolve(object_id, results[0] if failed else results[index])

    def resolve_items(self, work: Work, items: list[Serialized], failure: Serialized | None) -> None:
        """A generator has ended: its items, and what it has failed with as one more, are objects of their own."""
        refs = []
        for index, value in enumerate([*items, *([] if failure is None else [failure])]):
            object_id = ids.object_id(work.task_id, index + 1)
            self._objects.expect(object_id)
            self._objects.resolve(object_id, value)
            refs.append(owned_ref(object_id))
        end = values.serialize(None)
        if work.stream is not None:
            work.stream.end(refs)
        elif items or failure is None:
            end = values.serialize(DynamicObjectRefGenerator(refs))
        else:
            end = failure
        self._objects.resolve(work.returns[0], end)


def owned_ref(object_id: bytes) -> ObjectRef:
    """A ref to an object of whoever has made its id."""
    return ObjectRef(object_id, ids.creator_of(object_id))

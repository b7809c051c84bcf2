"""The owner's side of a generator against a list of what was yielded: random arrivals, replays, takes and drops."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from hypothesis import given, settings, strategies as st

from shoal.core import ids, refs
from shoal.core.errors import ObjectRefStreamEndOfStreamError, TaskCancelledError
from shoal.core.protocol.specs import Value
from shoal.core.runtime.holdings import failure_value
from shoal.core.runtime.objects import ObjectTable
from shoal.core.runtime.references import ReferenceTable
from shoal.core.runtime.streams import ReturnStream
from shoal.core.serialization import values
from shoal.core.serialization.values import FAILURE

ME = b"w" * ids.WORKER_BYTES


class Holdings:
    """The tables, without memory and messages; also the sink of refs (`refs.RefEvents`)."""

    def __init__(self):
        self.objects = ObjectTable()
        self.references = ReferenceTable(ME, on_free=self.objects.forget, on_drop=lambda *_: None)
        self.discarded = 0
        self.released = self.references.released
        self.received = self.references.received

    def resolve(self, object_id, value, *, credit=True):
        self.objects.resolve(object_id, value)

    def discard(self, value):
        self.discarded += 1

    def settled(self, ref):
        return Future()


class Scene:
    """One stream, driven by hand: posts run when the test says so."""

    def __init__(self, backpressure=-1):
        self.holdings = Holdings()
        refs.connect(self.holdings)
        self.posts = []
        self.told = []
        self.stream = ReturnStream(
            ME,
            ids.IdSource(ids.WorkerID(ME), ids.JobID(b"jjjj")).task(),
            self.holdings,
            name="count",
            wait=self.wait,
            post=lambda function, argument: self.posts.append((function, argument)),
            post_later=lambda function, argument: self.posts.append((function, argument)),
            tell_taken=lambda task_id, count: self.told.append(count),
            backpressure=backpressure,
        )

    def wait(self, wanted, count, timeout_s):
        self.work_off()
        ready = [ref for ref in wanted if self.holdings.objects.value(ref.binary()) is not None]
        return ready, [ref for ref in wanted if ref not in ready]

    def work_off(self):
        while self.posts:
            function, argument = self.posts.pop(0)
            function(argument)

    def number(self, ref):
        """What an item says, or its error."""
        value = self.holdings.objects.value(ref.binary())
        error_or_number = values.deserialize(value.kind, value.payload, value.buffers)
        return type(error_or_number) if value.kind == FAILURE else error_or_number


@pytest.fixture(autouse=True)
def _no_session_of_others():
    yield
    refs.connect(None)


def item(number):
    serialized = values.serialize(number).owned()
    return Value(serialized.kind, serialized.data, serialized.buffers, [])


STEPS = st.lists(st.sampled_from(["item", "item", "take", "take", "peek", "replay", "look", "posts"]), max_size=60)
ENDS = st.sampled_from(["end", "fail", "open"])


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, end=ENDS, backpressure=st.sampled_from([-1, 2]), closes_at=st.integers(0, 80))
def test_what_is_taken_is_what_was_yielded_once_and_in_order(  # noqa: C901  a step for each branch
    steps, end, backpressure, closes_at
):
    scene = Scene(backpressure)
    stream = scene.stream
    yielded = taken = replayed = discarded = 0
    is_closed = False
    held = []
    for position, step in enumerate(steps):
        if position == closes_at:
            stream.close()
            scene.work_off()
            is_closed = True
        if step == "item":
            wanted = stream.arrived(replayed, item(replayed))
            assert wanted == (replayed == yielded and not is_closed)
            yielded += wanted
            replayed = replayed + 1
            discarded += not wanted
        elif step == "replay":
            stream.again()
            replayed = 0
        elif step == "posts":
            scene.work_off()
        elif is_closed:
            continue
        elif step == "peek":
            stream.peek()
        elif step == "look":
            assert stream.is_ready() == (taken < yielded)
        elif step == "take":
            ref = stream.take(0.0)
            assert (ref is not None) == (taken < yielded)
            if ref is not None:
                assert scene.number(ref) == taken
                taken += 1
                held.append(ref)
        assert not stream.is_finished()
    if end != "open":
        while replayed < yielded:  # the last run comes at least as far as those before it
            stream.arrived(replayed, item(replayed))
            replayed += 1
        if end == "end":
            stream.ended()
        else:
            stream.failed(failure_value(TaskCancelledError("no more")))
            discarded_failure = scene.holdings.discarded
            assert discarded_failure == is_closed
        if not is_closed:
            left = []
            while True:
                try:
                    ref = stream.take(0.0)
                except StopIteration:
                    break
                assert ref is not None, "whatever comes after the end comes at once"
                left.append(scene.number(ref))
                del ref
            assert left == [*range(taken, yielded), *([TaskCancelledError] if end == "fail" else [])]
            assert stream.is_finished()
            assert scene.number(stream.peek()) is ObjectRefStreamEndOfStreamError
    if not is_closed:
        stream.close()
    scene.work_off()
    ref = None
    held.clear()
    stream.completion = None
    assert not len(scene.holdings.references), "every ref has gone, and nothing is kept"
    assert not len(scene.holdings.objects)


def test_a_second_run_that_yields_less_is_an_error_after_what_was_received():
    scene = Scene()
    for number in range(3):
        scene.stream.arrived(number, item(number))
    scene.stream.again()
    scene.stream.arrived(0, item(0))
    scene.stream.ended()
    taken = [scene.number(scene.stream.take(0.0)) for _ in range(4)]
    assert taken[:3] == [0, 1, 2]
    assert taken[3].__name__ == "StreamingGeneratorReplayInconsistentError"
    with pytest.raises(StopIteration):
        scene.stream.take(0.0)


def test_the_worker_is_told_what_was_taken_and_that_nobody_takes_any_more():
    scene = Scene(backpressure=2)
    for number in range(2):
        scene.stream.arrived(number, item(number))
    scene.stream.take(0.0)
    scene.stream.take(0.0)
    scene.stream.close()
    scene.work_off()
    assert scene.told == [1, 2, -1]
    scene.stream.arrived(2, item(2))
    assert scene.told == [1, 2, -1, -1], "it may not have been there to hear it the first time"

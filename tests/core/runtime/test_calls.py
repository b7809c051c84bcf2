"""One caller's line to one actor against a list of calls, under random answers, restarts, cancellations and death."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from shoal.core.protocol import messages as m
from shoal.core.protocol.specs import NO_VALUE, Value
from shoal.core.runtime.calls import ActorLine
from shoal.core.runtime.tasks import Submission

FAILURE = Value(1, b"", [], [])


def call(number, *, missing, retries):
    message = m.CallMethod(bytes([number]), b"actor", "f", "", NO_VALUE, b"", [], 1, -1, [])
    return Submission(message, "f", [], [], [], missing=missing, retries=retries)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "submit late", "ready", "answer", "alive", "restart", "cancel", "send"]),
        st.integers(0, 100),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, retries=st.sampled_from([0, 1, -1]))
def test_calls_go_in_order_and_each_ends_once(steps, retries):  # noqa: C901  a step for each branch
    line = ActorLine()
    waiting: list[Submission] = []  # the model: in the order in which they are to go
    under_way: list[Submission] = []
    ended: list[Submission] = []
    made = 0

    def send():
        ready = line.sendable()
        expected = []
        while line.state == "ALIVE" and waiting and not waiting[0].missing:
            expected.append(waiting.pop(0))
        assert ready == expected
        for sent in ready:
            if sent.failed:
                assert line.done(sent.task_id) is sent  # as the shell does it: it was cancelled while it stood in line
            else:
                under_way.append(sent)

    for step, choice in steps:
        if step.startswith("submit"):
            waiting.append(call(made, missing=step == "submit late", retries=retries))
            line.submit(waiting[-1])
            made += 1
        elif step == "ready":
            late = [each for each in waiting if each.missing]
            if late:
                late[choice % len(late)].missing = 0
        elif step == "answer" and under_way:
            answered = under_way.pop(choice % len(under_way))
            assert line.is_under_way(answered.task_id)
            assert line.done(answered.task_id) is answered
            assert line.done(answered.task_id) is None
            ended.append(answered)
        elif step == "alive":
            line.state = "ALIVE"
        elif step == "restart" and line.state == "ALIVE":
            before = {each.task_id: each.retries for each in under_way}
            failed = line.lost()
            assert failed == [each for each in under_way if before[each.task_id] == 0]
            again = [each for each in under_way if before[each.task_id] != 0]
            assert all(each.retries == (-1 if before[each.task_id] == -1 else 0) for each in again)
            waiting[:0] = again
            ended += failed
            under_way.clear()
        elif step == "cancel" and waiting:
            cancelled = waiting[choice % len(waiting)]
            if not cancelled.failed:
                cancelled.failed, cancelled.missing, cancelled.retries = True, 0, 0
                ended.append(cancelled)
        send()
        assert [each for each, sent in line if sent] == under_way
        assert [each for each, sent in line if not sent] == waiting
    assert line.died(FAILURE) == under_way + waiting
    assert not list(line)
    ended += [each for each in under_way + waiting if not each.failed]
    assert sorted(each.task_id for each in ended) == [bytes([number]) for number in range(made)]

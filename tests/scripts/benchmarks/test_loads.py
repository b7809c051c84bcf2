"""Loads: when requests are sent, and from when they are late."""

import asyncio
import math
import time

import pytest

import shoal
from shoal.scripts.benchmarks import loads
from shoal.scripts.benchmarks.loads import Answered, Load


def test_one_client_is_late_from_when_a_request_was_to_be_sent():
    replies = iter(range(100))

    def ask():
        number = next(replies)
        if number == 1:
            time.sleep(0.05)
        return number

    load = loads.in_turn(ask, per_second=100.0, count=4)
    assert [each.reply for each in load.answered] == [0, 1, 2, 3]
    assert [each.due_s for each in load.answered] == pytest.approx([0.0, 0.01, 0.02, 0.03])
    assert load.answered[2].latency_s > 0.035, "held up by the one before"


@pytest.fixture
def shoal_session():
    with shoal.init(num_cpus=1):
        yield


class Desk:
    """Answers when five have asked; the second is refused."""

    def __init__(self):
        self._asked, self._is_open = 0, asyncio.Event()

    async def ask(self):
        self._asked += 1
        if self._asked == 5:
            self._is_open.set()
        if self._asked == 2:
            raise ValueError("no")
        await self._is_open.wait()
        return "yes"

    async def never(self):
        await asyncio.Event().wait()


def test_many_clients_do_not_wait_for_each_other_and_failures_are_kept_apart(shoal_session):
    desk, done = shoal.remote(Desk).remote(), []
    load = loads.at_once(
        desk.ask.remote, per_second=lambda _: 200.0, seconds=0.025, errands=[(0.01, lambda: done.append("errand"))]
    )
    assert len(load.good) == 4
    [failed] = load.failed
    assert isinstance(failed.error, ValueError)
    assert done == ["errand"]
    assert sorted(each.due_s for each in load.answered) == pytest.approx([0.0, 0.005, 0.01, 0.015, 0.02])


def test_who_is_never_answered_ends_the_load_by_name_of_how_many(shoal_session):
    desk = shoal.remote(Desk).remote()
    with pytest.raises(TimeoutError, match="2 requests"):
        loads.at_once(desk.never.remote, per_second=lambda _: 100.0, seconds=0.02, patience_s=0.1)


def test_parts_of_a_load_are_by_when_requests_were_to_be_sent():
    load = Load([Answered(0.0, 0.5), Answered(1.0, 1.1), Answered(1.5, 1.7, error=ValueError())])
    assert load.within(1.0, 2.0).answered == load.answered[1:]
    assert loads.percentile_s(load.good, 100) == 0.5
    assert loads.percentile_s([], 50) == math.inf

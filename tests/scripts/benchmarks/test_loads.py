"""Loads: when requests are sent, and from when they are late."""

import asyncio
import math
import time

import pytest

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


def test_many_clients_do_not_wait_for_each_other_and_failures_are_kept_apart():
    async def main():
        waiting = asyncio.Event()
        asked = 0

        async def ask():
            nonlocal asked
            asked += 1
            if asked == 5:
                waiting.set()
            if asked == 2:
                raise ValueError("no")
            await waiting.wait()
            return "yes"

        return await loads.at_once(ask, per_second=lambda _: 200.0, seconds=0.025)

    load = asyncio.run(main())
    assert len(load.good) == 4
    assert [str(each.error) for each in load.failed] == ["no"]


def test_parts_of_a_load_are_by_when_requests_were_to_be_sent():
    load = Load([Answered(0.0, 0.5), Answered(1.0, 1.1), Answered(1.5, 1.7, error=ValueError())])
    assert load.within(1.0, 2.0).answered == load.answered[1:]
    assert loads.percentile_s(load.good, 100) == 0.5
    assert loads.percentile_s([], 50) == math.inf

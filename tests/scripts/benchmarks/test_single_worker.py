import os
import time

import pytest

from shoal.scripts.benchmarks import children, single_worker


def test_a_worker_is_measured_beside_a_loop_turn_by_turn():
    order = {"work": "single", "step_s": 1e-5, "seed": 0, "rollouts": 3, "at_once": 2, "pairs": 1, "turns": 2}
    turns = list(children.run(children.Engine("shoal"), "single_worker.py", order))
    ways = [f"{kind}_{what}" for what in ("one", "some", "all") for kind in ("added", "processor")]
    assert [list(told) for told in turns] == [["shoal", *ways]] * 2
    for told in turns:
        assert 0 < told["shoal"] < 2 / order["step_s"]
        assert min(told[way] for way in ways) > -1.0


def test_the_processor_time_of_a_process_is_that_which_it_reads_itself():
    before = single_worker.processor_seconds(os.getpid())
    assert before == pytest.approx(time.process_time(), abs=0.05)
    while single_worker.processor_seconds(os.getpid()) < before + 0.01:
        pass  # it goes on as we work

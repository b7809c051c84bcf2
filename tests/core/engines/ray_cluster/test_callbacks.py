"""The thread of callbacks is there whenever something is due."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from shoal.core.engines.ray_cluster import callbacks

DEADLINE_S = 5.0


def comes_to_run():
    done = threading.Event()
    callbacks.run(done.set)
    return done.wait(DEADLINE_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_leaves_takes_no_later_one_with_it():
    assert comes_to_run()
    ended = callbacks._thread
    callbacks.run(lambda: sys.exit(3))
    ended.join(DEADLINE_S)
    assert not ended.is_alive()
    assert comes_to_run()


def test_a_process_that_was_forked_starts_a_thread_of_its_own():
    assert comes_to_run()
    child = os.fork()
    if child == 0:
        os._exit(0 if comes_to_run() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

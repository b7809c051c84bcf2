"""What a worker costs while it has nothing to do."""

from __future__ import annotations

import sys
import textwrap
from subprocess import run

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_worker_has_few_threads_and_little_memory_and_no_zmq():
    script = """
        import os, sys, threading, time, shoal
        shoal.init(num_cpus=1)

        @shoal.remote
        class Actor:
            def look(self):
                with open("/proc/self/smaps_rollup") as file:
                    private_kib = sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
                return len(os.listdir("/proc/self/task")), private_kib, "zmq" in sys.modules

        actor = Actor.remote()
        shoal.get([actor.look.remote() for _ in range(100)])
        time.sleep(0.2)
        print(*shoal.get(actor.look.remote()), len(os.listdir("/proc/self/task")), "zmq" in sys.modules)
    """
    done = run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=True)
    threads, private_kib, has_zmq, threads_of_driver, driver_has_zmq = done.stdout.split()
    assert int(threads) <= 3
    assert int(private_kib) < 40 * 1024
    assert int(threads_of_driver) <= 4, "one more than a worker: it prints what workers print"
    assert (has_zmq, driver_has_zmq) == ("False", "False"), "it has two threads of its own, and takes 20 ms to import"

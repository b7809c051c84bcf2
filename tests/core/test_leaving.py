"""A worker that leaves runs what is to be run at its end, but not for ever: its callers wait for its death."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import atexit, os, time
import shoal
from shoal.actor import exit_actor
shoal.init(num_cpus=2, object_store_memory=64 << 20)

@shoal.remote
class HangsAtExit:
    def __init__(self):
        atexit.register(time.sleep, 1000)
    def pid(self):
        return os.getpid()
    def leave(self):
        exit_actor()

@shoal.remote
class HangsInDel:
    def pid(self):
        return os.getpid()
    def __del__(self):
        time.sleep(1000)

def is_gone(pid):
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        if not os.path.exists(f"/proc/{pid}"):
            return True
        time.sleep(0.02)
    return False

for kind in (HangsAtExit, HangsInDel):
    actor = kind.remote()
    pid = shoal.get(actor.pid.remote())
    del actor
    assert is_gone(pid), pid
actor = HangsAtExit.remote()
try:
    shoal.get(actor.leave.remote(), timeout=10)
except shoal.exceptions.ActorDiedError as error:
    print(error)
shoal.shutdown()
"""


def test_a_worker_that_hangs_while_it_leaves_is_ended():
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "SHOAL_EXIT_PATIENCE_S": "0.3"},
    )  # fmt: skip
    assert "exit_actor" in ran.stdout

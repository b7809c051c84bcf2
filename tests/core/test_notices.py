"""Nothing waits in silence, and nothing else is said: whole programs and what they print."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import time
import shoal
shoal.init(num_cpus=2, object_store_memory=64 << 20)

@shoal.remote
def sleep(seconds):
    time.sleep(seconds)

@shoal.remote
def nested(seconds):
    return shoal.get([sleep.remote(seconds), sleep.remote(seconds)])

@shoal.remote(num_cpus=1)
class Holder:
    def ready(self):
        return True
    def outer(self, me):
        return shoal.get(me.ready.remote())

{body}
shoal.shutdown()
"""


def stderr_of(body, notice_s=0.4):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "SHOAL_NOTICE_S": str(notice_s)},
    )  # fmt: skip
    assert ran.stdout == ""
    return [line for line in ran.stderr.splitlines() if line]


@pytest.mark.parametrize(
    "body",
    [
        "shoal.get(sleep.remote(1.2))",
        "refs = [sleep.remote(0.4) for _ in range(6)]; shoal.get(refs[-1]); shoal.wait(refs, num_returns=6)",
        "shoal.get(sleep.options(num_cpus=2).remote(1.2)); shoal.get([nested.remote(0.6) for _ in range(3)])",
    ],
)
def test_a_clean_run_of_long_tasks_prints_nothing(body):
    assert stderr_of(body) == []


def test_a_task_that_waits_for_what_an_actor_holds_is_reported_once():
    lines = stderr_of("""
holder = Holder.remote()
shoal.get(holder.ready.remote())
ref = sleep.options(num_cpus=2).remote(0)
for _ in range(3):
    try:
        shoal.get(ref, timeout=1)
    except shoal.exceptions.GetTimeoutError:
        pass
del holder
shoal.get(ref)
""")
    assert len(lines) == 1
    assert lines[0].startswith(
        "shoal: get has been waiting for 0.4 s: sleep() waits in the queue: it needs CPU 2, 1 of 2"
    )
    assert "Holder (pid" in lines[0]


def test_an_actor_that_waits_for_itself_is_reported_once_whoever_waits():
    lines = stderr_of("""
actor = Holder.remote()
ref = actor.outer.remote(actor)
ready, _ = shoal.wait([ref], timeout=2)
assert not ready
shoal.kill(actor)
""")
    assert len(lines) == 1
    assert "Holder.ready() waits on pid" in lines[0]
    assert lines[0].endswith("that never ends")


def test_notices_can_be_switched_off():
    body = "holder = Holder.remote(); shoal.wait([sleep.options(num_cpus=2).remote(0)], timeout=1.5)"
    assert stderr_of(body, notice_s=0) == []

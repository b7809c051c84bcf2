"""What workers print, as a driver of its own shows it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import shoal
from shoal import exceptions

pytestmark = pytest.mark.native_only("inline work prints where its driver does")

HEADER = """
    import os, sys, time
    import shoal
"""


def run(script, *, timeout=60, **environment):
    """(stdout, stderr) of a driver, as lists of lines in which every process id is N."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HEADER) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return [re.sub(r"pid=\d+", "pid=N", text).splitlines() for text in (done.stdout, done.stderr)]


def test_tasks_and_actors_print_under_their_names():
    out, err = run("""
        shoal.init(num_cpus=1)
        @shoal.remote
        def f():
            print("out of f")
            print("err of f", file=sys.stderr)
        @shoal.remote
        class Counter:
            def count(self):
                print("counted")
        @shoal.remote
        class Named:
            def __init__(self): print("begins")
            def __repr__(self): return "Named(3)"
            def count(self): print("counted too")
        shoal.get(f.remote())
        shoal.get(f.options(name="other").remote())
        shoal.get(Counter.remote().count.remote())
        shoal.get(Named.remote().count.remote())
    """)
    assert out == [
        "(f pid=N) out of f",
        "(other pid=N) out of f",
        "(Counter pid=N) counted",
        "(Named pid=N) begins",
        "(Named(3) pid=N) counted too",
    ]
    assert err == ["(f pid=N) err of f", "(other pid=N) err of f"]


def test_a_run_that_prints_nothing_prints_nothing():
    assert run("""
        shoal.init(num_cpus=1)
        shoal.get(shoal.remote(lambda: 1).remote())
    """) == [[], []]


@pytest.mark.parametrize(
    "end", ["", "shoal.shutdown()", "sys.exit(0)", "time.sleep(0.1); shoal.shutdown(); shoal.init(num_cpus=1)"]
)
def test_what_was_printed_before_the_answer_is_there_at_the_end(end):
    out, _ = run(f"""
        shoal.init(num_cpus=2)
        @shoal.remote
        def f(i):
            print(i)
        shoal.get([f.remote(i) for i in range(500)])
        {end}
    """)
    assert sorted(int(line.split()[-1]) for line in out) == list(range(500))


def test_what_was_not_ended_by_a_newline_is_shown_when_the_worker_leaves_or_flushes():
    out, _ = run("""
        shoal.init(num_cpus=1)
        @shoal.remote
        class A:
            def begin(self): print("begun", end=" ", flush=True)
            def leave(self):
                print("left", end="")
                sys.exit(0)
        a = A.remote()
        shoal.get(a.begin.remote())
        try:
            shoal.get(a.leave.remote())
        except shoal.exceptions.ActorDiedError:
            pass
    """)
    assert out == ["(A pid=N) begun left"]


def test_what_was_not_ended_by_a_newline_is_shown_when_the_worker_has_time():
    out, _ = run("""
        shoal.init(num_cpus=1)
        @shoal.remote
        def f(): print("begun", end="")
        shoal.get(f.remote())
        time.sleep(0.3)
    """)
    assert out == ["(f pid=N) begun"]


def test_log_to_driver_false_is_silent():
    assert run("""
        shoal.init(num_cpus=1, log_to_driver=False)
        @shoal.remote(max_retries=0)
        def f():
            print("out")
            print("last words", file=sys.stderr)
            os._exit(3)
        try:
            shoal.get(f.remote())
        except shoal.exceptions.WorkerCrashedError as error:
            assert "last words" in str(error), error
    """) == [[], []]


def test_children_and_c_code_print_under_the_name_that_printed_last():
    out, err = run("""
        import subprocess
        shoal.init(num_cpus=1)
        @shoal.remote
        def f():
            print("python")
            subprocess.run(["sh", "-c", "echo child; echo child >&2"])
            os.write(1, b"descriptor\\n")
            sys.stdout.buffer.write(b"buffer\\n")
            sys.stdout.flush()
            print(sys.stdout.fileno(), sys.stdout.isatty(), sys.stdin.read())
        shoal.get(f.remote())
    """)
    assert out == [f"(f pid=N) {text}" for text in ("python", "child", "descriptor", "buffer", "1 False ")]
    assert err == ["(f pid=N) child"]


def test_what_several_workers_print_alike_is_told_once():
    script = """
        shoal.init(num_cpus=3)
        @shoal.remote
        def f():
            print("the same")
            time.sleep(0.3)
        shoal.get([f.remote() for _ in range(3)])
    """
    out, _ = run(script)
    assert out == ["(f pid=N) the same", "(f pid=N) the same [2 more times, by 3 workers]"]
    assert run(script, RAY_DEDUP_LOGS="0")[0] == ["(f pid=N) the same"] * 3
    assert run(script, SHOAL_FOLD_OUTPUT_S="0")[0] == ["(f pid=N) the same"] * 3


def test_megabytes_arrive_whole_and_in_order():
    out, _ = run("""
        shoal.init(num_cpus=2)
        @shoal.remote
        def f(k):
            for i in range(20_000):
                print(k, i, "x" * 100)
        shoal.get([f.remote(k) for k in range(2)])
    """)
    numbers = [line.split()[2:4] for line in out]
    for k in ("0", "1"):
        assert [int(i) for owner, i in numbers if owner == k] == list(range(20_000))


def test_streams_that_were_kept_before_the_fork_speak_for_the_task_too(tmp_path):
    (tmp_path / "keeps_stderr.py").write_text("import sys\nerr, out = sys.stderr, sys.stdout\n")
    out, err = run(
        """
        import logging
        shoal.init(num_cpus=1, preload=["keeps_stderr"], logging_config=shoal.LoggingConfig(log_level="INFO"))
        @shoal.remote
        def f(number):
            import keeps_stderr
            print(number, file=keeps_stderr.out)
            logging.getLogger("x").info(number)
        @shoal.remote
        def g():
            shoal.get(f.remote(2))
            print("g")
        shoal.get(f.remote(1))
        shoal.get(g.remote())
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
    assert out == ["(f pid=N) 1", "(f pid=N) 2", "(g pid=N) g"]
    assert [re.sub(r"\) .* (\d)$", r") \1", line) for line in err] == ["(f pid=N) 1", "(f pid=N) 2"]


def test_prints_of_threads_and_coroutines_keep_their_names():
    out, _ = run("""
        import asyncio
        shoal.init(num_cpus=2)
        @shoal.remote
        class Many:
            async def say(self, i):
                for _ in range(20):
                    print("coroutine", i)
                    await asyncio.sleep(0)
        @shoal.remote(max_concurrency=4)
        class Threads:
            def say(self, i):
                for _ in range(50):
                    print("thread", i)
        many, threads = Many.remote(), Threads.remote()
        shoal.get([a.say.remote(i) for a in (many, threads) for i in range(4)])
    """)
    assert {line.rsplit(" ", 1)[0] for line in out} == {"(Many pid=N) coroutine", "(Threads pid=N) thread"}
    assert len(out) == 80 + 200


def test_a_driver_that_is_killed_or_whose_reader_goes_away_leaves_nothing_hanging(has_ended):
    script = textwrap.dedent(HEADER) + textwrap.dedent("""
        shoal.init(num_cpus=1)
        @shoal.remote
        def chatter():
            print(os.getpid(), flush=True)
            while True:
                print("x" * 1000)
        shoal.get(chatter.remote())
    """)
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    line = driver.stdout.readline().decode()
    worker = int(line.split()[-1])
    driver.stdout.close()
    time.sleep(0.3)
    os.kill(worker, 0)
    driver.kill()
    driver.wait(10)
    deadline = time.monotonic() + 5
    while not has_ended(worker):
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.05)


def test_prints_wait_while_nobody_reads_and_calls_do_not():
    script = textwrap.dedent(HEADER) + textwrap.dedent("""
        shoal.init(num_cpus=2)
        @shoal.remote
        def chatter():
            for _ in range(3000):
                print("x" * 1000)
        done = chatter.remote()
        assert not shoal.wait([done], timeout=1.0)[0]
        print("works", shoal.get(shoal.remote(lambda: 1).remote(), timeout=10), file=sys.stderr, flush=True)
        shoal.get(done, timeout=30)
    """)
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert driver.stderr.readline() == "works 1\n"
    out, err = driver.communicate(timeout=30)
    assert (driver.returncode, err) == (0, "")
    assert len(out.splitlines()) == 3000


def test_a_driver_whose_output_nobody_reads_ends_nevertheless_and_says_what_is_missing():
    script = textwrap.dedent(HEADER) + textwrap.dedent("""
        shoal.init(num_cpus=1)
        @shoal.remote
        def chatter():
            for i in range(3000):
                print("x" * 1000)
        chatter.remote()
        time.sleep(1)
    """)
    driver = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SHOAL_STOP_TIMEOUT_S": "1"},
    )
    assert driver.wait(30) == 0
    out, err = driver.communicate(timeout=10)
    shown = len(out.splitlines())
    missing = re.fullmatch(r"shoal: at least (\d+) lines of workers are not shown: nobody takes them\n", err)
    assert missing, err
    assert 0 < shown < 3000
    assert int(missing[1]) > 0


# ---- how a death is told


def test_the_last_lines_of_stderr_stand_in_the_error():
    @shoal.remote(max_retries=0)
    def complains():
        for number in range(30):
            print("complaint", number, file=sys.stderr)
        os._exit(3)

    with pytest.raises(exceptions.WorkerCrashedError) as caught:
        shoal.get(complains.remote(), timeout=30)
    head, *words = str(caught.value).splitlines()
    assert head.endswith("its worker ended with exit code 3. The last lines of its stderr:")
    assert words == [f"complaint {number}" for number in range(10, 30)]


def test_a_crash_in_c_code_shows_where_it_was():
    @shoal.remote
    class Crashes:
        def here(self):
            os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(exceptions.ActorDiedError, match="signal SIGSEGV") as caught:
        shoal.get(Crashes.remote().here.remote(), timeout=30)
    words = str(caught.value).splitlines()
    assert "Fatal Python error: Segmentation fault" in words
    assert any(re.search(r"test_worker_output.py.* in here", line) for line in words)
    assert not any("execution.py" in line for line in words)


def test_who_sent_sigkill_is_said():
    @shoal.remote(max_retries=0)
    def stray():
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(exceptions.WorkerCrashedError, match=r"SIGKILL \(9\), which shoal did not send"):
        shoal.get(stray.remote(), timeout=30)

    @shoal.remote(max_restarts=1)
    class Actor:
        def pid(self):
            return os.getpid()

        def wait(self):
            time.sleep(60)

    actor = Actor.remote()
    shoal.get(actor.pid.remote(), timeout=30)
    waiting = actor.wait.remote()
    time.sleep(0.1)
    shoal.kill(actor, no_restart=False)
    with pytest.raises(exceptions.ActorUnavailableError, match=r"which shoal sent because kill\(\) was called"):
        shoal.get(waiting, timeout=30)

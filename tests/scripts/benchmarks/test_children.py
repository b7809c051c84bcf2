"""Children tell their results line by line; one that fails or hangs is ended, and the reason told."""

import os
import signal
import subprocess
import sys
import time

import pytest

from shoal.scripts.benchmarks import children

ENGINE = children.Engine("shoal")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes a program where the benchmark's programs are looked for."""
    monkeypatch.setattr(children, "__file__", str(tmp_path / "children.py"))

    def write(*lines: str) -> str:
        order = "order = json.loads(sys.argv[1]); tell = os.fdopen(order['results_fd'], 'w')"
        (tmp_path / "program.py").write_text("\n".join(("import json, os, sys, time", order, *lines)))
        return "program.py"

    return write


def test_what_a_child_tells_comes_line_by_line(program):
    name = program("print(json.dumps(order['n']), file=tell)", "print(json.dumps(order['engine']), file=tell)")
    assert list(children.run(ENGINE, name, {"n": 7})) == [7, "shoal"]


def test_a_child_that_fails_is_told_with_its_last_words(program):
    name = program("print(1, file=tell, flush=True)", "sys.exit('out of luck')")
    told = children.run(ENGINE, name, {})
    assert next(told) == 1
    with pytest.raises(children.ChildError, match=r"(?s)shoal ended with exit code 1.*out of luck"):
        next(told)


def test_a_child_that_is_silent_for_too_long_is_ended(program):
    name = program("print('asleep', flush=True)", "time.sleep(60)")
    with pytest.raises(children.ChildError, match=r"(?s)silent for 0.5 s.*asleep"):
        list(children.run(ENGINE, name, {}, patience_s=0.5))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_that_ends_the_benchmark_ends_its_child_and_what_that_started(program, has_ended, tmp_path, number):
    started = tmp_path / "started"
    program(
        "import subprocess",
        "below = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
        f"open({str(started)!r} + '.part', 'w').write(f'{{os.getpid()}} {{below.pid}}')",
        f"os.rename({str(started)!r} + '.part', {str(started)!r})",
        "time.sleep(60)",
    )
    code = (
        "from shoal.scripts.benchmarks import children; from shoal.scripts.command_line import run_command;"
        f"children.__file__ = {str(tmp_path / 'children.py')!r};"
        "raise SystemExit(run_command('bench', lambda:"
        "    len(list(children.run(children.Engine('shoal'), 'program.py', {})))))"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    bench = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 30
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    bench.send_signal(number)
    assert bench.communicate(timeout=30)[1] == "bench: interrupted\n"
    assert bench.returncode == 130
    assert all(has_ended(int(pid)) for pid in started.read_text().split())
    assert list(scratch.iterdir()) == []


def test_an_interpreter_without_the_engine_is_told(tmp_path):
    with pytest.raises(children.ChildError, match="cannot import no_such_engine: ModuleNotFoundError"):
        children.Engine("no_such_engine").version()
    with pytest.raises(children.ChildError, match="cannot be run: No such file"):
        children.Engine("ray", str(tmp_path / "python")).version()


def test_ray_is_told_to_be_quiet_and_to_stay_in_its_folder(tmp_path):
    ray = children.Engine("ray", sys.executable)
    assert ray.settings(str(tmp_path))["_temp_dir"] == str(tmp_path)
    assert ray.environment()["RAY_USAGE_STATS_ENABLED"] == "0"
    assert ENGINE.settings(str(tmp_path)) == {}

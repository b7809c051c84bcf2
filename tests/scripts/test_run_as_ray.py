"""`shoal run-as-ray`: the program runs as Python runs it, and finds shoal where it asks for ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.scripts import run_as_ray


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal.scripts", "run-as-ray", *arguments],
        cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_ray_program_runs(tmp_path):
    (tmp_path / "program.py").write_text(
        "import ray\nfrom ray.util.queue import Queue\n\n\n@ray.remote\ndef square(x):\n    import ray.util\n"
        "    return x * x, ray.__version__\n\n\nif __name__ == '__main__':\n    ray.init(num_cpus=1)\n"
        "    print(ray.get(square.remote(7)))\n"
    )
    ran = run("program.py", cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "(49, '2.60.0')\n", "")


@pytest.mark.parametrize("arguments", [["probe.py", "a", "--flag"], ["-m", "probe", "a"], ["-W", "error", "probe.py"]])
def test_arguments_main_traceback_and_exit_code_are_those_of_python(tmp_path, arguments):
    (tmp_path / "probe.py").write_text(
        "import atexit, sys\natexit.register(lambda: print(__name__, sys.modules['__main__'].sys))\n"
        "print(sys.argv, __name__, __file__, __spec__ and __spec__.name, sys.path)\nraise ValueError('unusual')\n"
    )
    ours, theirs = run(*arguments, cwd=tmp_path), python(*arguments, cwd=tmp_path)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert "unusual" in ours.stderr


@pytest.mark.parametrize("code", ["import sys; sys.exit(7)", "import os; os.kill(os.getpid(), 15)"])
def test_how_the_program_ends_is_how_the_command_ends(tmp_path, code):
    assert run("-c", code, cwd=tmp_path).returncode == python("-c", code, cwd=tmp_path).returncode != 0


def test_programs_that_it_starts_find_shoal_too(tmp_path):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import ray; print(ray.get.__module__)'])"
    assert run("-c", code, cwd=tmp_path).stdout == "shoal\n"


def test_who_does_not_ask_for_ray_does_not_pay_for_it(tmp_path):
    told = run("-c", "import sys; print([name for name in sys.modules if name.startswith('shoal')])", cwd=tmp_path)
    assert told.stdout == "[]\n"


def test_the_metadata_of_ray_is_found_before_ray_is_imported(tmp_path):
    code = "import importlib.metadata as m, sys; print(m.version('ray'), len(m.version('numpy')) > 2)"
    assert run("-c", code, cwd=tmp_path).stdout == "2.60.0 True\n"


def test_a_sitecustomize_of_the_environment_runs_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('theirs')")
    before = os.environ.get("PYTHONPATH", "")
    ran = run(
        "-c", "import sitecustomize; print(sitecustomize.__file__)",
        cwd=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{before}".rstrip(os.pathsep),
    )  # fmt: skip
    # Once by the interpreter of the command itself, once by that of the program.
    assert ran.stdout.splitlines() == ["theirs", "theirs", str(tmp_path / "sitecustomize.py")]


def test_without_a_program_it_explains_itself(tmp_path, capsys):
    assert run_as_ray.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: shoal run-as-ray SCRIPT")
    assert run_as_ray.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: shoal run-as-ray SCRIPT")


def test_the_environment_keeps_the_path_it_had():
    assert run_as_ray.environment({"A": "b"}) == {"A": "b", "PYTHONPATH": run_as_ray.STARTUP}
    path = run_as_ray.environment({"PYTHONPATH": f"x{os.pathsep}"})["PYTHONPATH"]
    assert path == f"{run_as_ray.STARTUP}{os.pathsep}x{os.pathsep}"


def test_ray_may_be_imported_after_the_session_was_started(tmp_path):
    code = """
import shoal
shoal.init(num_cpus=1)
import ray
@ray.remote
def look():
    import ray
    return ray.get is shoal.get
print(ray.get(look.remote()))
"""
    assert run("-c", code, cwd=tmp_path).stdout == "True\n"

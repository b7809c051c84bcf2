"""Streams that are closed, full, or lose their reader: no traceback, and only the display is lost."""

import os
import signal
import subprocess
import sys

import pytest

from shoal.scripts.standard_streams import Outlet


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command, sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_an_outlet_goes_on_when_its_reader_leaves_and_says_so_once():
    read_end, write_end = os.pipe()
    os.close(read_end)
    losses: list[OSError] = []
    with os.fdopen(write_end, "w") as stream:
        outlet = Outlet(stream, losses.append)
        for _ in range(3):
            outlet.write("a line\n")
            outlet.flush()
        assert outlet.is_lost
        assert not outlet.isatty()
    assert [type(error) for error in losses] == [BrokenPipeError]


def test_a_crash_in_native_code_is_told_with_the_lines_that_led_there():
    crash = "from shoal.scripts.standard_streams import make_ready; make_ready(); import ctypes; ctypes.string_at(0)"
    ran = subprocess.run([sys.executable, "-c", crash], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == -signal.SIGSEGV
    assert ran.stderr.startswith("Fatal Python error: Segmentation fault")
    assert "ctypes/__init__.py" in ran.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["evaluate", "--help"]])
@pytest.mark.parametrize("target", [">&-", "> /dev/full", "| true"])
def test_help_for_nobody_is_silent(arguments, target):
    ran = run(f'"$0" -m shoal.scripts "$@" {target}', *arguments)
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    if target == "> /dev/full":
        assert ran.stderr.strip().endswith("cannot write the output: No space left on device")
        assert ran.returncode == 1
    else:
        assert ran.stderr == ""


def test_a_stream_that_was_closed_is_not_given_to_a_file():
    code = (
        "from shoal.scripts.standard_streams import make_ready; import os, sys\n"
        "make_ready(); file = open(os.devnull); print('nobody reads this')\n"
        "sys.exit(file.fileno() > 2 and sys.stdin.read() == '' and os.get_inheritable(1))"
    )
    assert run('"$0" -c "$1" <&- >&- 2>&-', code).returncode == 1


@pytest.mark.parametrize(("code", "told"), [(1, "told\n"), (0, "told\nafterwards\n")])
def test_after_a_failure_that_was_told_libraries_say_no_more(code, told):
    program = (
        "import atexit, sys; from shoal.scripts.standard_streams import leave, say\n"
        "atexit.register(lambda: print('afterwards', file=sys.stderr)); say('told'); leave(int(sys.argv[1]))"
    )
    ran = run('"$0" -c "$@"', program, str(code))
    assert (ran.returncode, ran.stderr) == (code, told)

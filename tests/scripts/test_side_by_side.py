"""Commands side by side: each ends for itself, and a signal takes all of them along."""

import signal
import subprocess
import sys
import time
from itertools import accumulate

import pytest

from shoal.scripts.side_by_side import run_all


def python(text):
    return [sys.executable, "-c", text]


def test_each_gives_its_exit_code_and_writes_to_its_file(tmp_path):
    jobs = {str(code): (python(f"print({code}); exit({code})"), tmp_path / str(code)) for code in (0, 3, 4)}
    jobs["killed"] = (python("import os; os.kill(os.getpid(), 9)"), None)
    assert dict(run_all(jobs, 2)) == {"0": 0, "3": 3, "4": 4, "killed": 128 + signal.SIGKILL}
    assert [(tmp_path / code).read_text() for code in ("0", "3", "4")] == ["0\n", "3\n", "4\n"]


#: Notes in a file that it has begun, waits until two have, and notes that it ends.
_MEETING = """
import pathlib, sys, time
notes = pathlib.Path(sys.argv[1])
with notes.open("a") as file: file.write("+")
deadline = time.monotonic() + 60.0
while notes.read_text().count("+") < 2 and time.monotonic() < deadline: time.sleep(0.01)
with notes.open("a") as file: file.write("-")
"""


def test_as_many_as_asked_for_run_at_once_and_no_more(tmp_path):
    notes = tmp_path / "notes"
    jobs = {name: ([*python(_MEETING), str(notes)], None) for name in "abcde"}
    assert dict(run_all(jobs, 2)) == dict.fromkeys("abcde", 0)
    going = list(accumulate(1 if note == "+" else -1 for note in notes.read_text()))
    assert (max(going), going[-1], len(going)) == (2, 0, 10)


#: Takes an interrupt as `shoal train` does: it finishes what it is at, and goes.
_GENTLE = """
import pathlib, signal, sys, time
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
pathlib.Path(sys.argv[1]).touch()
while not asked: time.sleep(0.01)
time.sleep(0.2)
pathlib.Path(sys.argv[1]).write_text("saved")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_gently_and_starts_no_more(number, tmp_path):
    places = [tmp_path / name for name in ("a", "b", "c")]
    jobs = {place.name: ([*python(_GENTLE), str(place)], None) for place in places}
    program = f"from shoal.scripts.side_by_side import run_all; list(run_all({jobs!r}, 2))"
    whole = subprocess.Popen(python(program), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60.0
    while not (places[0].exists() and places[1].exists()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    whole.send_signal(number)
    assert b"KeyboardInterrupt" in whole.communicate(timeout=60.0)[1]
    assert [place.read_text() for place in places[:2]] == ["saved", "saved"]
    assert not places[2].exists()

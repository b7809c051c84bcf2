"""What processes hold, and what a session has left behind."""

import os
import subprocess
import sys

import pytest

import shoal
from shoal.scripts.endurance import processes


def test_the_footprint_of_this_process_is_plausible():
    mine = processes.footprint(os.getpid())
    assert 1 << 20 < mine.private_bytes <= mine.pss_bytes < 1 << 36
    assert mine.descriptors >= 3
    assert mine.threads >= 1
    assert (mine + mine).processes == 2


def test_a_process_that_is_not_there_has_none():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        processes.footprint(child.pid)


def test_nothing_is_left_behind_where_nothing_happened():
    assert processes.Before.look().left_behind() == []


def test_a_process_a_descriptor_and_a_folder_that_were_left_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(processes, "_PATIENCE_S", 0.0)
    before = processes.Before.look()
    (tmp_path / "shoal-left").mkdir()
    (tmp_path / "shoal-left" / "owners").write_text(f"{os.getpid()} 1")
    (tmp_path / "shoal-of-another").mkdir()
    (tmp_path / "shoal-of-another" / "owners").write_text("1 2")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    reading, writing = os.pipe()
    try:
        left = before.left_behind()
    finally:
        child.kill()
        child.wait()
        os.close(reading)
        os.close(writing)
    assert [line.split()[0] for line in left] == ["process", "descriptor", "descriptor", "folder"]
    assert str(child.pid) in left[0]
    assert left[3] == f"folder {tmp_path / 'shoal-left'}"


def test_workers_are_found_whatever_they_run():
    shoal.init(num_cpus=1, object_store_memory=64 << 20)
    try:
        actor = shoal.remote(num_cpus=0)(Busy).remote()
        pids = {shoal.get(actor.pid.remote()), shoal.get(shoal.remote(os.getpid).remote())}
        assert {process.pid for process in processes.workers()} == pids
    finally:
        shoal.shutdown()


class Busy:
    def pid(self) -> int:
        return os.getpid()

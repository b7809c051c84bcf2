"""Tiny runs of every way to simulate; of MPI with one rank, and a launcher that does no more than run it."""

import sys
from pathlib import Path

import pytest

from shoal.scripts.benchmarks import children, simulating, simulating_mpi

ORDER = {"num_workers": 2, "step_s": 1e-5, "batches": 1, "seed": 0}


@pytest.mark.parametrize("work", ["dynamic", "awaited"])
def test_actors_play_what_they_are_asked_for(work):
    told = simulating.WORK[work](ORDER)
    assert 0 < told["steps_per_second"] < 2 / ORDER["step_s"]


def test_a_pool_plays_in_a_process_of_its_own():
    [told] = children.run(children.Engine("shoal"), "simulating.py", {**ORDER, "work": "pool"})
    assert told["steps_per_second"] > 0


_ONE_RANK = """
class World:
    size, rank = 1, 0
    def Ibarrier(self): return self
    def Test(self): return True
    def gather(self, played): return [played]
class MPI: COMM_WORLD = World()
"""


def test_ranks_are_launched_with_the_order_and_what_the_first_tells_is_passed_on(tmp_path, monkeypatch):
    (tmp_path / "mpi4py.py").write_text(_ONE_RANK)
    launcher = tmp_path / "mpirun"
    launcher.write_text(
        f"""#!/bin/sh
case "$1" in --version) echo "mpirun (Open MPI) 9.9"; exit;; esac
echo "$@" > "{tmp_path}/arguments"
while [ "$1" != -n ]; do shift; done
shift 2
PYTHONPATH="{tmp_path}:{Path(simulating.shoal.__file__).parents[1]}" exec "$@"
"""
    )
    launcher.chmod(0o755)
    monkeypatch.setattr(simulating_mpi, "mpirun", lambda: str(launcher))
    told = simulating_mpi.launched({**ORDER, "work": "mpi"})
    assert told.startswith('{"steps_per_second": ')
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith("--oversubscribe --bind-to none ")
    assert f" -n 2 {sys.executable} " in arguments
    assert simulating_mpi.version() == "mpirun (Open MPI) 9.9"


def test_ranks_that_fail_take_the_child_with_them(tmp_path, monkeypatch):
    launcher = tmp_path / "mpirun"
    launcher.write_text("#!/bin/sh\nexit 3\n")
    launcher.chmod(0o755)
    monkeypatch.setattr(simulating_mpi, "mpirun", lambda: str(launcher))
    with pytest.raises(SystemExit) as raised:
        simulating_mpi.launched(ORDER)
    assert raised.value.code == 3

"""`make` on a bare machine: which Python it takes, what it says when there is none, when it installs; and `.ci/run`.

The interpreters are stand-ins that write down how they are called; nothing is installed.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("make", "sh", "bash", "env", "head", "rm", "mkdir", "touch", "cat", "sed", "chmod", "mktemp", "dirname")

#: Answers like Python $2; `-m venv DIR` makes an environment whose python is a stand-in too.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "{log}"
case "$1" in
  --version) echo "Python {version}" ;;
  -c) case "$2" in *version_info*) exit {unsuitable} ;; *ensurepip*) exit {no_venv} ;; esac ;;
  -m) if [ "$2" = venv ]; then mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; fi ;;
esac
"""


class Machine:
    """A PATH with nothing but a few tools and the interpreters that the test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.log = folder / "bin", folder / "log"
        self.checkout = folder / "check out"  # make and spaces are no friends: the Makefile must cope
        self.bin.mkdir()
        self.log.touch()
        self.checkout.mkdir()
        for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.checkout / name)
        for name in (*TOOLS, "basename", "cp", "grep", "tail"):
            (self.bin / name).symlink_to(str(shutil.which(name)))

    def add_python(self, name: str, version: str, *, suitable: bool, has_venv: bool = True) -> None:
        path = self.bin / name
        path.write_text(
            STAND_IN.format(log=self.log, version=version, unsuitable=int(not suitable), no_venv=int(not has_venv))
        )
        path.chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments],
            cwd=self.checkout, env={"PATH": str(self.bin)}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_no_suitable_python_is_one_clear_error(machine):
    machine.add_python("python3", "3.9.2", suitable=False)
    ran = machine.make("install")
    assert ran.returncode != 0
    assert "shoal needs Python 3.10 to 3.13; found: Python 3.9.2. Install one of them, or name it" in ran.stderr
    assert not (machine.checkout / ".venv").exists()


def test_no_python_at_all_is_the_same_error(machine):
    ran = machine.make("install")
    assert ran.returncode != 0
    assert "shoal needs Python 3.10 to 3.13; found: none. Install" in ran.stderr


def test_python3_is_taken_where_it_suits(machine):
    machine.add_python("python3", "3.11.7", suitable=True)
    machine.add_python("python3.13", "3.13.0", suitable=True)
    assert machine.make("install").returncode == 0
    assert "python3 -m venv --clear .venv" in machine.log.read_text()


def test_else_the_newest_that_suits(machine):
    machine.add_python("python3", "3.14.0", suitable=False)
    machine.add_python("python3.13", "", suitable=False)
    for minor in (10, 12):
        machine.add_python(f"python3.{minor}", f"3.{minor}", suitable=True)
    assert machine.make("install").returncode == 0
    assert "python3.12 -m venv --clear .venv" in machine.log.read_text()


def test_one_can_be_named(machine):
    machine.add_python("python3", "3.11.7", suitable=True)
    machine.add_python("other", "3.12.1", suitable=True)
    assert machine.make("install", "PYTHON=other", "VENV=elsewhere").returncode == 0
    assert "other -m venv --clear elsewhere" in machine.log.read_text()
    assert not (machine.checkout / ".venv").exists()


def test_a_python_without_venv_is_told_with_what_to_install(machine):
    machine.add_python("python3", "3.11.7", suitable=True, has_venv=False)
    ran = machine.make("install")
    assert ran.returncode != 0
    assert "apt install python3-venv" in ran.stderr


def test_a_second_call_installs_nothing_and_a_changed_requirement_installs_again(machine):
    machine.add_python("python3", "3.11.7", suitable=True)
    install = "python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]"
    assert machine.make("install").returncode == 0
    assert machine.log.read_text().count(install) == 1
    before = machine.log.read_text()
    assert machine.make("install").returncode == 0
    assert machine.log.read_text() == before
    stamp = (machine.checkout / ".venv" / ".installed").stat().st_mtime
    os.utime(machine.checkout / "setup.cfg", (stamp + 10, stamp + 10))
    assert machine.make("install").returncode == 0
    assert machine.log.read_text().count(install) == 2
    assert machine.log.read_text().count("-m venv") == 1


def test_the_environment_may_be_in_a_folder_with_spaces_in_its_name(machine):
    machine.add_python("python3", "3.11.7", suitable=True)
    for _ in range(2):
        ran = machine.make("test", "VENV=an other place", "ARGS=-x")
        assert ran.returncode == 0, ran.stderr
    log = machine.log.read_text()
    assert log.count("-m venv --clear an other place") == log.count("-m pip install") == 1
    assert log.count("-m pytest -n 2 --dist loadfile -x") == 2
    assert (machine.checkout / "an other place" / ".installed").is_file()


def test_plain_make_explains_the_targets(machine):
    told = machine.make().stdout
    for target in ("train", "test", "test-ray", "test-gpu", "test-browser", "lint", "bench", "chaos", "soak", "clean"):
        assert f"make {target}" in told


def test_results_go_into_the_package(machine):
    told = machine.make("-n", "results", "ARGS=--seeds 1").stdout
    assert "results --output algorithms/zoo_results.json --seeds 1" in told


def test_ray_is_installed_once_and_only_for_what_needs_it(machine):
    machine.add_python("python3", "3.11.7", suitable=True)
    assert machine.make("test").returncode == 0
    assert "ray" not in machine.log.read_text()
    for _ in range(2):
        assert machine.make("test-ray", "ARGS=tests/core").returncode == 0
    assert machine.log.read_text().count("-m pip install") == 2
    assert machine.log.read_text().count("-c constraints.txt -e .[dev,ray]") == 1
    assert machine.log.read_text().count("python -m pytest -m ray tests/core") == 2


def run_ci(machine: Machine, make: str) -> "subprocess.CompletedProcess[str]":
    """`.ci/run` with a make that writes down how it is called and does what the text says."""
    shutil.copytree(ROOT / ".ci", machine.checkout / ".ci")
    (machine.bin / "make").unlink()
    (machine.bin / "make").write_text(f'#!/bin/sh\necho "$PWD|$*" >> "{machine.log}"\n{make}\n')
    (machine.bin / "make").chmod(0o755)
    scratch = machine.bin.parent / "tmp"
    scratch.mkdir()
    ran = subprocess.run(
        [machine.checkout / ".ci" / "run"], capture_output=True, text=True,
        cwd="/", env={"PATH": str(machine.bin), "TMPDIR": str(scratch)}, timeout=60, check=False,
    )  # fmt: skip
    assert list(scratch.iterdir()) == []
    for line in machine.log.read_text().splitlines():
        folder, arguments = line.split("|")
        assert folder == str(machine.checkout)
        assert arguments.startswith(f"VENV={scratch}/")
    return ran


def goals(machine: Machine) -> list[str]:
    return [line.partition("/venv ")[2] for line in machine.log.read_text().splitlines()]


def test_ci_uses_a_fresh_environment_outside(machine):
    assert run_ci(machine, "exit 0").returncode == 0
    assert goals(machine) == ["lint test", "install-browser", "test-browser", "install-ray", "test-ray"]


def test_ci_tests_on_a_gpu_where_torch_finds_one(machine):
    seen = "mkdir -p ${1#VENV=}/bin; echo exit 0 > ${1#VENV=}/bin/python; chmod +x ${1#VENV=}/bin/python"
    ran = run_ci(machine, seen)
    assert ran.returncode == 0
    assert goals(machine) == ["lint test", "test-gpu", "install-browser", "test-browser", "install-ray", "test-ray"]
    assert "left out" not in ran.stdout


@pytest.mark.parametrize(("failing", "called"), [("lint", 1), ("test-browser", 3), ("test-ray", 5)])
def test_ci_exits_as_make_does(machine, failing, called):
    assert run_ci(machine, f'case "$*" in *"{failing}"*) exit 7 ;; esac').returncode == 7
    assert len(goals(machine)) == called


def test_a_ray_that_cannot_be_installed_is_told_in_a_line_and_fails_nothing(machine):
    make = 'case "$*" in *install-ray*) echo x; echo "ERROR: no ray"; echo "make: *** [y] Error 1"; exit 2 ;; esac'
    ran = run_ci(machine, make)
    assert ran.returncode == 0
    assert goals(machine) == ["lint test", "install-browser", "test-browser", "install-ray"]
    no_gpu, no_ray = ran.stdout.splitlines()
    assert no_gpu == "tests on a GPU left out, there is none"
    assert no_ray == "tests on Ray left out, it cannot be installed here: ERROR: no ray"


def test_a_browser_that_cannot_be_installed_is_told_in_a_line_and_fails_nothing(machine):
    make = 'case "$*" in *install-browser*) echo x; echo "no chromium"; echo "make: *** [y] Error 1"; exit 2 ;; esac'
    ran = run_ci(machine, make)
    assert ran.returncode == 0
    assert goals(machine) == ["lint test", "install-browser", "install-ray", "test-ray"]
    assert ran.stdout.splitlines()[1] == "tests in a browser left out, there is none: no chromium"


@pytest.mark.parametrize("name", ["chromium", "google-chrome"])
def test_a_browser_that_is_there_is_taken(machine, name):
    machine.add_python("python3", "3.11.7", suitable=True)
    (machine.bin / name).write_text("#!/bin/sh\n")
    (machine.bin / name).chmod(0o755)
    assert machine.make("test-browser", "ARGS=-x").returncode == 0
    assert "python -m pytest -m browser -x" in machine.log.read_text()


def test_without_a_browser_it_is_installed_or_said_how(machine):
    machine.add_python("python3", "3.11.7", suitable=True)
    for name, text in (("apt-get", f'echo "apt-get $*" >> "{machine.log}"'), ("id", "echo 0")):
        (machine.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (machine.bin / name).chmod(0o755)
    assert machine.make("test-browser").returncode == 0
    assert "apt-get install -y -qq --no-install-recommends chromium" in machine.log.read_text()
    (machine.bin / "id").write_text("#!/bin/sh\necho 1000\n")
    ran = machine.make("test-browser")
    assert ran.returncode != 0
    assert "sudo apt-get install chromium" in ran.stderr

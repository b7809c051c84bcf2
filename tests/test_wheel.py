"""What `pip install .` installs: every package of the tree, no tests, and it works away from the checkout."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from shoal.core.engines.ray_cluster import shipping

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("core", "rllib", "envs", "algorithms", "serving", "scripts")


def packages_of_the_tree() -> list[str]:
    folders = [init.parent for part in PARTS for init in (ROOT / part).rglob("__init__.py")]
    return sorted(["shoal", *(".".join(("shoal", *folder.relative_to(ROOT).parts)) for folder in folders)])


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built without network from a copy: building inside the checkout would leave `build/` there."""
    source = tmp_path_factory.mktemp("source") / "checkout"
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")
    shutil.copytree(ROOT, source, ignore=hidden)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    ran = subprocess.run(
        [*command, "--wheel-dir", target, source], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (built,) = target.glob("shoal-*.whl")
    return built


def test_setup_cfg_lists_exactly_the_packages_of_the_tree(setup_cfg):
    assert sorted(setup_cfg["options"]["packages"].split()) == packages_of_the_tree()


def test_every_python_file_is_in_a_package():
    homeless = [
        str(path.relative_to(ROOT))
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if not (path.parent / "__init__.py").is_file()
    ]
    assert homeless == []
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_the_wheel_holds_every_module_and_no_test(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name.removeprefix("shoal/") for name in names if name.startswith("shoal/")}
    modules = {str(path.relative_to(ROOT)) for part in PARTS for path in (ROOT / part).rglob("*.py")}
    assert {name for name in inside if name.endswith(".py")} == modules | {"__init__.py"}
    assert "py.typed" in inside
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"shoal"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_a_ray_cluster_is_sent_the_same_from_a_checkout_and_from_the_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    installed, here = tmp_path / "shoal", shipping.package_files(ROOT)
    assert shipping.package_files(installed) == here
    assert [(installed / path).read_bytes() for path in here] == [(ROOT / path).read_bytes() for path in here]


def test_every_module_imports_from_the_wheel_in_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    code = (
        "import importlib, pathlib, pkgutil, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]\n"
        "import shoal\n"
        "assert pathlib.Path(shoal.__file__).is_relative_to(sys.argv[1]), shoal.__file__\n"
        "names = [module.name for module in pkgutil.walk_packages(shoal.__path__, 'shoal.')]\n"
        "for name in names:\n"
        "    if not name.endswith('.__main__') and '.ray_cluster.' not in name:\n"  # not everybody has Ray
        "        importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", code, site],
        cwd=empty, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= len(packages_of_the_tree()) - 1
    assert list(empty.iterdir()) == []


def test_the_tested_versions_cover_every_dependency_and_lie_in_its_range(setup_cfg):
    pinned: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (version,) = (each.version for each in requirement.specifier if each.operator == "==")
            pinned.setdefault(canonical(requirement.name), []).append(version)
    wanted = setup_cfg["options"]["install_requires"] + setup_cfg["options.extras_require"]["dev"]
    for line in wanted.split("\n"):
        if line.strip():
            requirement = Requirement(line)
            versions = pinned.get(canonical(requirement.name), [])
            assert versions, f"constraints.txt has no version of {requirement.name}"
            assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: {versions}"
    assert pinned["torch"] == ["2.13.0"]


def test_no_torch_is_accepted_that_lacks_what_ppo_asks_of_it(setup_cfg):
    # Adam(fused=True) on a CPU came with 2.4.0; before, it raised.
    requirements = map(Requirement, filter(None, setup_cfg["options"]["install_requires"].split("\n")))
    (torch,) = (requirement for requirement in requirements if requirement.name == "torch")
    assert not torch.specifier.contains("2.3.1")
    assert torch.specifier.contains("2.4.0")


def test_the_wheel_brings_the_shoal_command(wheel):
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "shoal = shoal.scripts.__main__:main" in archive.read(entry_points).decode()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

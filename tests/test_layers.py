"""Who may import whom: the rows of the design, checked against the `import` statements of every file.

A row may import the rows above it. Within a row, names may import each other unless `|` parts them: those are siblings
that talk by message. `rllib`, `algorithms` and `scripts` see only the public line of the core, so that another engine
can carry them unchanged. Imports that only a type checker sees count like the others: what a file knows of is what it
depends on.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CORE_ROWS = """
    exception_parts task_error errors ids ray_compat config clock lifecycle resources refs generators session
    dag observing.measures signatures
    environments.ignore_rules environments.runtime_env output.output_lines scheduling
    options environments
    protocol
    transport | serialization
    store
    control | node | runtime
    output
    cluster engines head
    initialization
    api remote placement destinations state runtime_context observing ray_compat.library_names
    patterns
    boot
"""
#: Modules of the core that everything above it may import.
PUBLIC_LINE = {
    f"core.{name}"
    for name in (
        "api",
        "remote",
        "placement",
        "scheduling.scheduling_strategies",
        "scheduling.memory",
        "runtime_context",
        "state",
        "observing.timeline",
        "patterns",
        "errors",
        "generators",
        "refs",
    )
}
#: Packages of rllib, lowest first; one of a row may not import another. Modules beside them (`worker_set`, `config`,
#: `streams`) are for all; `algorithm`, `trainable` and `actor_critic_learner` put the packages together.
RLLIB_ROWS = """
    policies
    inference
    rollouts
    learning | evolution | training
    learner_groups
"""
#: The rest of the tree: what each part may import beside itself.
MAY_IMPORT = {
    "envs": set(),
    "rllib": PUBLIC_LINE | {"envs"},
    "algorithms": PUBLIC_LINE | {"envs", "rllib"},
    "serving": PUBLIC_LINE | {"envs", "rllib"},
    "scripts": PUBLIC_LINE | {"", "core", "envs", "rllib", "algorithms", "serving"},
    "": PUBLIC_LINE | {"core", "core.ray_compat.ray_names"},
}
#: Libraries that cost so much to import that a function may do it when it needs them.
LATE_LIBRARIES = {
    "torch", "gymnasium", "ray", "tensorboardX", "matplotlib", "asyncio", "zmq", "imageio", "onnx", "onnxruntime",
    "stable_baselines3", "sample_factory", "mpi4py", "ale_py", "envpool", "cma", "aiohttp", "evotorch",
}  # fmt: skip
#: It imports ray, which not everybody has.
RAY_ENGINE = "core.engines.ray_cluster"
#: Parts of shoal that are imported when they are asked for: two of them would make `import shoal` a quarter slower.
LATE_PARTS = {RAY_ENGINE, "core.engines.inline", "core.runtime.async_lanes"}


@dataclass(frozen=True)
class Import:
    """One imported module, of shoal (`core.errors`, "" is the root) or of a library."""

    file: str
    line: int
    target: str
    of_shoal: bool
    relative: bool
    in_function: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {'shoal.' if self.of_shoal else ''}{self.target}"


def sources(root: Path) -> list[Path]:
    """Every Python file of the package, without tests and without what tools left in hidden folders."""
    parts = ("core", "envs", "rllib", "algorithms", "serving", "scripts")
    return sorted([root / "__init__.py", *(path for part in parts for path in (root / part).rglob("*.py"))])


def imports(path: Path, root: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = path.relative_to(root).parent.parts
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets, relative = [name.name for name in node.names], False
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            targets, relative = list(names_from(root, [part for part in base if part], node)), True
        elif isinstance(node, ast.ImportFrom):
            targets, relative = list(names_from(root, str(node.module).split("."), node)), False
        else:
            continue
        for target in targets:
            of_shoal = relative or target.split(".")[0] == "shoal"
            name = target if relative else target.removeprefix("shoal").removeprefix(".") if of_shoal else target
            yield Import(str(path.relative_to(root)), node.lineno, name, of_shoal, relative, id(node) in late)


def names_from(root: Path, base: list[str], node: ast.ImportFrom) -> Iterator[str]:
    """The modules that a `from` names: `from ..core import errors` is core.errors, `from .refs import X` is refs."""
    inside = base[1:] if base[:1] == ["shoal"] else base
    for name in node.names:
        place = root.joinpath(*inside, name.name)
        is_module = place.with_suffix(".py").is_file() or place.is_dir()
        yield ".".join([*base, name.name] if is_module else base)


def core_row(module: str) -> tuple[int, int] | None:
    """Row and group of a module of the core: `core.store.arena` -> (6, 0); None where no row has it.

    A module of a package may have a row of its own (`observing.measures`); it counts before that of its package.
    """
    parts = module.split(".")[1:3]
    for name in (".".join(parts), parts[0]):
        for row, line in enumerate(CORE_ROWS.strip().splitlines()):
            for group, names in enumerate(line.split("|")):
                if name in names.split():
                    return row, group
    return None


def rllib_row(module: str) -> tuple[int, int] | None:
    """Row and place in it of a module in a package of rllib; None for modules of rllib itself."""
    package = module.split(".")[1:2]
    for row, line in enumerate(RLLIB_ROWS.strip().splitlines()):
        names = [name.strip() for name in line.split("|")]
        if package and package[0] in names:
            return row, names.index(package[0])
    return None


def is_within(module: str, allowed: set[str]) -> bool:
    """Whether a module is one of these or inside one. "core" alone means only what its `__init__` shows."""
    return any(module == name or (name not in ("", "core") and module.startswith(f"{name}.")) for name in allowed)


def complaint(found: Import, importer: str) -> str | None:
    """What is wrong with one import of shoal by shoal, if anything.

    Args:
      found: the import.
      importer: the importing module without `shoal.`: `core.node.server`, "" for the root.
    """
    part = importer.split(".", maxsplit=1)[0]
    if not found.relative and part != "scripts":
        return "imports inside the package are relative"
    mine, its = rllib_row(importer), rllib_row(found.target)
    if part == "rllib" and found.target.startswith("rllib.") and mine and its:
        return "points upwards or sideways in rllib" if its[0] >= mine[0] and its != mine else None
    if part != "core" or importer == "core":
        allowed = MAY_IMPORT.get(part, PUBLIC_LINE) | {part}
        return None if is_within(found.target, allowed) or (part == "" and found.target == "") else f"{part} may not"
    if not found.target.startswith("core."):
        return "the core knows nothing above it"
    mine, its = core_row(importer), core_row(found.target)
    if mine is None or its is None:
        return f"{importer if mine is None else found.target} is in no row of CORE_ROWS"
    if its > mine and its[0] != mine[0]:
        return "points upwards"
    return "siblings talk by message" if its[0] == mine[0] and its[1] != mine[1] else None


def module_name(file: str) -> str:
    return ".".join(part for part in Path(file).with_suffix("").parts if part != "__init__")


def wrong_imports(root: Path) -> list[str]:
    """Every import that breaks a rule, with its place and the rule."""
    wrong = []
    for path in sources(root):
        for found in imports(path, root):
            if found.of_shoal:
                reason = complaint(found, module_name(found.file))
                if reason is None and found.in_function and not is_within(found.target, LATE_PARTS):
                    reason = "imports of shoal stand at the top of the module"
            else:
                library = found.target.split(".")[0]
                if library == "ray" and not is_within(module_name(found.file), {RAY_ENGINE}):
                    reason = f"only {RAY_ENGINE} imports ray"
                elif found.in_function and library not in LATE_LIBRARIES:
                    reason = f"inside a function only {', '.join(sorted(LATE_LIBRARIES))}"
                else:
                    reason = None
            if reason:
                wrong.append(f"{found}  ({reason})")
    return wrong


def test_every_import_points_downwards():
    wrong = wrong_imports(ROOT)
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_module_of_the_core_is_in_a_row():
    modules = {module_name(str(path.relative_to(ROOT))) for path in sources(ROOT)}
    lost = sorted(name for name in modules if name.startswith("core.") and core_row(name) is None)
    assert not lost, f"add to CORE_ROWS, in the row where it belongs: {lost}"


@pytest.mark.parametrize(
    ("file", "statement", "is_wrong"),
    [
        ("core/node/server.py", "from ..protocol import messages", False),
        ("core/node/server.py", "from .pool import Pool", False),
        ("core/node/server.py", "from ..control import nodes", True),
        ("core/node/server.py", "from .. import control", True),
        ("core/node/server.py", "from shoal.core import errors", True),
        ("core/protocol/codec.py", "from ..transport import loop", True),
        ("core/transport/loop.py", "from .. import errors", False),
        ("core/transport/loop.py", "from ..serialization.values import dump", True),
        ("core/api.py", "from .remote import remote", False),
        ("core/api.py", "from .patterns import queue", True),
        ("core/unheard.py", "from . import errors", True),
        ("core/errors.py", "from ..rllib import batch", True),
        ("core/errors.py", "import ray", True),
        ("core/engines/ray_cluster/engine.py", "import ray", False),
        ("core/engines/native.py", "import ray", True),
        ("envs/vector.py", "from . import registry", False),
        ("envs/vector.py", "from ..core import errors", True),
        ("rllib/worker_set.py", "from ..core import api, errors", False),
        ("rllib/worker_set.py", "from ..core.store import arena", True),
        ("rllib/worker_set.py", "from .. import core", True),
        ("rllib/worker_set.py", "from ..algorithms import ppo", True),
        ("rllib/worker_set.py", "import shoal", True),
        ("rllib/learning/learner.py", "def f():\n  import torch", False),
        ("rllib/learning/learner.py", "def f():\n  import json", True),
        ("rllib/learning/learner.py", "def f():\n  from . import batch", True),
        ("rllib/learning/learner.py", "from ..rollouts.batch import Batch\nfrom ..batch import Batch", False),
        ("rllib/learning/learner.py", "from ..training.batch import Batch", True),
        ("rllib/learning/learner.py", "from ..learner_groups.batch import Batch", True),
        ("algorithms/ppo.py", "from ..rllib import batch", False),
        ("serving/http_server.py", "from ..rllib import batch\nfrom ..core import errors", False),
        ("serving/http_server.py", "def f():\n  from aiohttp import web", False),
        ("serving/http_server.py", "from ..algorithms import ppo", True),
        ("algorithms/ppo.py", "from ..serving import requests", True),
        ("scripts/train.py", "import shoal\nfrom shoal.rllib import batch", False),
        ("scripts/train.py", "from shoal.core.runtime import process", True),
    ],
)
def test_the_rules_themselves(tmp_path, file, statement, is_wrong):
    for folder in ("core/protocol", "core/transport", "core/serialization", "core/store", "core/control", "core/node"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in (
        "core/engines/ray_cluster",
        "core/runtime",
        "core/patterns",
        "envs",
        "rllib/learning",
        "algorithms",
        "serving",
        "scripts",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("__init__", "core/errors", "core/api", "core/store/arena", "rllib/batch", "algorithms/ppo"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / file).write_text(statement)
    assert bool(wrong_imports(tmp_path)) == is_wrong, wrong_imports(tmp_path)

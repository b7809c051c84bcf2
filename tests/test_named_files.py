"""Comments, docstrings and the pages on architecture name files; files move. Every file that is named must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: A name of a file, with or without folders, that is no string of the program's.
NAMED = re.compile(r"(?<![\w\"'/.*])((?:\w+/)*\w+\.py)\b")
#: Of others: Ray's benchmark, OpenAI's evolution strategies, and an example of what a user may have.
FOREIGN = {"ray/_private/ray_perf.py", "es_distributed/es.py", "my_games.py"}


def sources() -> list[str]:
    folders = ("core", "envs", "rllib", "algorithms", "serving", "scripts", "tests")
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def unknown(text: str, files: list[str]) -> list[str]:
    """The files that a text names and that are not there."""
    return [name for name in NAMED.findall(text) if not any(f"/{file}".endswith(f"/{name}") for file in files)]


@pytest.mark.parametrize(
    "place", [*(file for file in sources() if not file.startswith("tests/")), "ARCHITECTURE.md", "docs/inside.md"]
)
def test_every_file_that_is_named_is_there(place):
    assert set(unknown((ROOT / place).read_text("utf-8"), sources())) <= FOREIGN


def test_what_counts_as_a_name():
    files = ["core/node/leases.py", "boot.py"]
    assert unknown("see leases.py, node/leases.py and core/node/leases.py; (boot.py)", files) == []
    assert unknown("see lease.py, `other/leases.py`", files) == ["lease.py", "other/leases.py"]
    assert unknown('open("a.py"); "*.py"', files) == []

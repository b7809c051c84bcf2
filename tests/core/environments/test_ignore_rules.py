"""Patterns as in ``.gitignore``: by examples, and against git itself."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from shoal.core.environments import snapshots
from shoal.core.environments.ignore_rules import Rules, is_ignored


@pytest.mark.parametrize(
    ("pattern", "path", "is_folder", "ignored"),
    [
        ("*.bin", "a/b.bin", False, True),
        ("*.bin", "b.bin.txt", False, False),
        ("/a", "a", False, True),
        ("/a", "b/a", False, False),
        ("a/b", "x/a/b", False, False),
        ("build/", "build", True, True),
        ("build/", "build", False, False),
        ("**/logs", "x/y/logs", True, True),
        ("a/**", "a/b/c", False, True),
        ("a/**", "a", True, False),
        ("a/**/z", "a/z", False, True),
        ("a/**/z", "a/b/c/z", False, True),
        ("?.py", "a.py", False, True),
        ("?.py", "ab.py", False, False),
        ("[a-c].py", "b.py", False, True),
        ("[!a-c].py", "b.py", False, False),
        ("\\#x", "#x", False, True),
        ("# x", "# x", False, False),
        ("", "", False, False),
        ("trailing   ", "trailing", False, True),
        ("a+b(c).txt", "a+b(c).txt", False, True),
    ],
)
def test_a_pattern_says_what_it_says_in_git(pattern, path, is_folder, ignored):
    assert is_ignored(path, [Rules.of([pattern])], is_folder=is_folder) == ignored


def test_the_last_pattern_that_matches_decides_and_inner_files_overrule_outer_ones():
    outer = Rules.of(["*.txt", "!keep.txt"])
    inner = Rules.of(["keep.txt"], "a/")
    assert not is_ignored("keep.txt", [outer, inner], is_folder=False)
    assert is_ignored("a/keep.txt", [outer, inner], is_folder=False)
    assert is_ignored("a/x.txt", [outer, inner], is_folder=False)


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git")
@pytest.mark.parametrize(
    "patterns",
    [["*.py", "!a.py"], ["/x/", "y"], ["x/*", "!x/y"], ["**/y/a.py"], ["x/**", "!x/a.py"], ["[xy]/[!a]*"], ["y/"]],
)
def test_what_is_walked_is_what_git_would_add(tmp_path, patterns):
    for parts in itertools.product(["", "x/", "y/"], ["", "x/", "y/"], ["a.py", "b.txt"]):
        path = tmp_path / "".join(parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / ".gitignore").write_text("\n".join(patterns))
    (tmp_path / "y" / ".gitignore").write_text("!b.txt\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    walked = [path for path, _ in snapshots.walk(str(tmp_path), []) if (Path(tmp_path) / path).is_file()]
    assert sorted(walked) == sorted(listed.stdout.split())

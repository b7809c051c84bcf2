"""Copies of folders: named by content, complete, bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoal.core.environments import snapshots


def take(source, target, **options):
    return snapshots.take(str(source), str(target), **{"excludes": [], "limit_bytes": 10_000, **options})


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "a.py").write_text("A = 1")
    (source / "run.sh").write_text("#!/bin/sh")
    (source / "run.sh").chmod(0o755)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "a.pyc").write_text("")
    return source


def names(place):
    return sorted(os.path.relpath(os.path.join(top, f), place) for top, _, files in os.walk(place) for f in files)


def test_the_same_content_is_copied_once_and_changed_content_again(folder, tmp_path):
    first = take(folder, tmp_path / "copies")
    assert names(first) == ["inner/a.py", "run.sh"]
    assert os.access(os.path.join(first, "run.sh"), os.X_OK)
    assert take(folder, tmp_path / "copies") == first
    (folder / "inner" / "a.py").write_text("A = 2")
    second = take(folder, tmp_path / "copies")
    assert second != first
    assert Path(first, "inner", "a.py").read_text() == "A = 1"
    assert sorted(os.listdir(tmp_path / "copies")) == sorted(map(os.path.basename, [first, second])), "no draft is left"


def test_a_name_puts_the_folder_or_file_inside_the_copy(folder, tmp_path):
    assert names(take(folder, tmp_path / "c", name="package")) == ["package/inner/a.py", "package/run.sh"]
    assert names(take(folder / "inner" / "a.py", tmp_path / "c", name="a.py")) == ["a.py"]


def test_excludes_have_the_last_word(folder, tmp_path):
    (folder / ".gitignore").write_text("*.sh\n")
    assert names(take(folder, tmp_path / "c")) == [".gitignore", "inner/a.py"]
    (folder / ".rayignore").write_text("inner\n.*ignore\n")
    assert names(take(folder, tmp_path / "c")) == []
    assert names(take(folder, tmp_path / "c", excludes=["!run.sh"])) == ["run.sh"]


def test_links_stay_inside_or_point_to_the_place_itself(folder, tmp_path):
    (tmp_path / "outside").write_text("out")
    (folder / "inner" / "in").symlink_to(folder / "run.sh")
    (folder / "out").symlink_to(tmp_path / "outside")
    place = take(folder, tmp_path / "c")
    assert os.path.realpath(os.path.join(place, "inner", "in")) == os.path.realpath(os.path.join(place, "run.sh"))
    assert os.path.realpath(os.path.join(place, "out")) == os.path.realpath(tmp_path / "outside")


def test_what_is_no_file_is_left_out(folder, tmp_path):
    os.mkfifo(folder / "pipe")
    assert "pipe" not in names(take(folder, tmp_path / "c"))


def test_too_much_is_refused_with_the_largest_files(folder, tmp_path):
    (folder / "large.bin").write_bytes(b"x" * 20_000)
    with pytest.raises(ValueError, match=r"more than 0 MB to copy; the largest so far: large.bin \(0.0 MB\)"):
        take(folder, tmp_path / "c")
    assert os.listdir(tmp_path / "c") == []


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        take(tmp_path / "nothing", tmp_path / "c")

"""What a runtime_env comes to: checked, merged with the parent's, the same bytes for the same environment."""

from __future__ import annotations

import json
import os
import sys

import pytest

import shoal
from shoal.core.environments.resolved import LIMIT_BYTES, Environment, Environments, applied
from shoal.core.environments.runtime_env import RuntimeEnv, wanted


def child(parent: bytes, tmp_path, **given) -> Environment:
    return Environment.decode(Environments(parent, str(tmp_path / "copies"), limit_bytes=10_000).resolve(wanted(given)))


def test_variables_are_merged_one_by_one():
    inline = Environments(Environment({"A": "1", "B": "1"}).encode(), "", limit_bytes=0)
    resolved = Environment.decode(inline.resolve(wanted({"env_vars": {"B": "2", "C": "3"}})))
    assert resolved.env_vars == {"A": "1", "B": "2", "C": "3"}
    assert inline.resolve(wanted({})) == inline.inherited


def test_a_folder_that_is_given_replaces_the_parents_and_one_that_is_not_is_inherited(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text("")
    parent = child(b"", tmp_path, working_dir=str(tmp_path / "one"), env_vars={"A": "1"})
    assert os.listdir(parent.working_dir) == ["one.py"]
    same = child(parent.encode(), tmp_path, env_vars={"B": "1"})
    assert (same.working_dir, same.env_vars) == (parent.working_dir, {"A": "1", "B": "1"})
    other = child(parent.encode(), tmp_path, working_dir=str(tmp_path / "two"))
    assert os.listdir(other.working_dir) == ["two.py"]
    modules = child(b"", tmp_path, py_modules=[str(tmp_path / "one"), str(tmp_path / "two" / "two.py")])
    assert [os.listdir(folder) for folder in modules.path] == [["one"], ["two.py"]]


def test_equal_environments_are_equal_bytes_and_nothing_is_no_bytes():
    assert Environment({"A": "1", "B": "2"}).encode() == Environment({"B": "2", "A": "1"}).encode()
    assert Environment().encode() == b""
    assert Environment.decode(b"") == Environment()
    assert wanted({"excludes": ["x"]}) is wanted({}) is wanted(None) is None


def test_one_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match=f"the limit is {LIMIT_BYTES}"):
        Environment({"A": "x" * LIMIT_BYTES}).encode()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"worker_process_setup_hook": print}, TypeError, "texts, numbers, lists and dicts"),
        ({"enviro": {}}, ValueError, "unknown key 'enviro'.*env_vars, excludes"),
        ({"env_vars": {"A": 1}}, TypeError, "map strings to strings, not 'A' to 1"),
        ({"env_vars": ["A"]}, TypeError, "dict of strings"),
        ({"env_vars": {"A=B": "1"}}, ValueError, "A=B"),
        ({"working_dir": "/no/such/folder"}, ValueError, "does not exist"),
        ({"working_dir": __file__}, ValueError, "must be a folder"),
        ({"working_dir": 3}, TypeError, "path of a folder"),
        ({"py_modules": "x"}, TypeError, "must be a list"),
        ({"py_modules": [sys]}, ValueError, "no file to copy"),
        ({"excludes": [1]}, TypeError, "list of strings"),
        (3, TypeError, "must be a dict or a RuntimeEnv"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(given, error, text):
    with pytest.raises(error, match=text):
        wanted(given)


def test_modules_may_be_given_themselves():
    found = wanted({"py_modules": [json, pytest]}).py_modules
    assert found == (os.path.dirname(json.__file__), os.path.dirname(pytest.__file__))


def test_runtime_env_is_a_dict_that_has_been_checked():
    assert shoal.runtime_env.RuntimeEnv is RuntimeEnv
    assert RuntimeEnv(env_vars={"A": "1"}, working_dir=None) == {"env_vars": {"A": "1"}}
    assert wanted(RuntimeEnv(env_vars={"A": "1"})).env_vars == (("A", "1"),)
    env = RuntimeEnv(env_vars={"A": "1"}, working_dir="/")
    assert (env.env_vars(), env.working_dir(), env.has_working_dir(), env.py_modules()) == ({"A": "1"}, "/", True, [])
    assert RuntimeEnv.deserialize(env.serialize()) == env == env.to_dict()
    with pytest.raises(ValueError, match="unknown key 'pipp'"):
        RuntimeEnv(pipp=["x"])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"pip": ["x"], "env_vars": {"A": "1"}}, "'pip'.*installs and starts nothing.*engine='ray'"),
        ({"conda": "x"}, "not supported"),
        ({"working_dir": "s3://bucket/x.zip"}, r"\['working_dir'\]: 's3://bucket/x.zip'.*URLs"),
        ({"py_modules": ["https://host/x.zip"]}, r"\['py_modules'\].*URLs"),
    ],
)
def test_what_only_a_ray_cluster_can_do_is_refused_where_an_environment_is_made(given, text):
    asked = wanted(given)
    assert asked is not None
    with pytest.raises(ValueError, match=text):
        Environments(b"", "", limit_bytes=0).resolve(asked)


def test_what_was_applied_is_taken_back(monkeypatch, tmp_path):
    monkeypatch.setenv("SHOAL_TEST_OLD", "old")
    monkeypatch.delenv("SHOAL_TEST_NEW", raising=False)
    folder, path = os.getcwd(), list(sys.path)
    environment = Environment({"SHOAL_TEST_OLD": "new:${SHOAL_TEST_OLD}", "SHOAL_TEST_NEW": "${NO}x"}, str(tmp_path))
    with applied(environment.encode()):
        assert os.environ["SHOAL_TEST_OLD"] == "new:old"
        assert os.environ["SHOAL_TEST_NEW"] == "x"
        assert (os.getcwd(), sys.path[0]) == (str(tmp_path), str(tmp_path))
    assert os.environ["SHOAL_TEST_OLD"] == "old"
    assert "SHOAL_TEST_NEW" not in os.environ
    assert (os.getcwd(), sys.path) == (folder, path)


def test_threads_are_part_of_an_environment_and_are_not_handed_down():
    session = Environments(b"", "", limit_bytes=0)
    assert session.resolve(None, 0) == b""
    wide = session.resolve(None, 4)
    assert Environment.decode(wide) == Environment(threads=4)
    assert Environment.decode(wide).describe() == {}
    below = Environments(wide, "", limit_bytes=0)
    assert below.resolve(None) == below.inherited == b""
    both = Environment.decode(below.resolve(wanted({"env_vars": {"A": "1"}}), 2))
    assert both == Environment({"A": "1"}, threads=2)


@pytest.mark.parametrize(
    ("environment", "before", "after"),
    [
        (Environment(), None, "1"),
        (Environment(threads=3), None, "3"),
        (Environment(threads=3), "5", "5"),
        (Environment({"OMP_NUM_THREADS": "6"}, threads=3), "5", "6"),
    ],
)
def test_threads_are_limited_unless_the_user_has_said_how_many(monkeypatch, environment, before, after):
    monkeypatch.setenv("OMP_NUM_THREADS", "0")  # restored at the end
    if before is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    environment.apply()
    environment.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == after

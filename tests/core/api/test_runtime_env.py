"""``runtime_env`` of tasks, actors and sessions."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap

import psutil
import pytest

import shoal


@shoal.remote
def variable(name):
    return os.environ.get(name)


@shoal.remote
class Reader:
    def variable(self, name):
        return os.environ.get(name)

    def nested(self, name):
        return shoal.get(variable.remote(name))


def with_vars(**variables):
    return {"runtime_env": {"env_vars": variables}}


def test_a_task_sees_its_variables_and_no_other_task_does():
    assert shoal.get(variable.options(**with_vars(SHOAL_T="1")).remote("SHOAL_T")) == "1"
    assert shoal.get(variable.remote("SHOAL_T")) is None
    values = [variable.options(**with_vars(SHOAL_T=str(i))).remote("SHOAL_T") for i in range(4)]
    assert shoal.get(values) == ["0", "1", "2", "3"]
    assert "SHOAL_T" not in os.environ


def test_an_actor_sees_its_variables_in_every_call_and_hands_them_down():
    reader = Reader.options(**with_vars(SHOAL_T="actor")).remote()
    assert shoal.get(reader.variable.remote("SHOAL_T")) == "actor"
    assert shoal.get(reader.nested.remote("SHOAL_T")) == "actor"
    assert shoal.get(Reader.remote().variable.remote("SHOAL_T")) is None


def test_nested_work_inherits_and_overrules_variable_by_variable():
    @shoal.remote(**with_vars(SHOAL_A="1", SHOAL_B="1"))
    def outer():
        inner = variable.options(**with_vars(SHOAL_B="2"))
        return shoal.get([inner.remote("SHOAL_A"), inner.remote("SHOAL_B"), variable.remote("SHOAL_B")])

    assert shoal.get(outer.remote()) == ["1", "2", "1"]


def test_the_context_tells_the_environment():
    @shoal.remote
    def told():
        context = shoal.get_runtime_context()
        return context.runtime_env, context.get_runtime_env_string()

    assert shoal.get(told.remote()) == ({}, "{}")
    told_vars, text = shoal.get(told.options(**with_vars(SHOAL_A="1")).remote())
    assert told_vars == {"env_vars": {"SHOAL_A": "1"}}
    assert text == '{"env_vars": {"SHOAL_A": "1"}}'
    assert shoal.get_runtime_context().runtime_env == {}


@pytest.mark.not_on_ray("Ray takes folders at the connection only, and says so")
def test_a_task_runs_in_its_working_dir_and_imports_from_it(tmp_path):
    (tmp_path / "told_by_working_dir.py").write_text("ANSWER = 42")
    (tmp_path / "data.txt").write_text("hello")

    @shoal.remote(runtime_env={"working_dir": str(tmp_path)})
    def work():
        module = importlib.import_module("told_by_working_dir")
        with open("data.txt") as file:
            return module.ANSWER, file.read()

    folder, path = os.getcwd(), list(sys.path)
    assert shoal.get(work.remote()) == (42, "hello")
    assert (os.getcwd(), sys.path) == (folder, path)
    sys.modules.pop("told_by_working_dir", None)  # inline shares the modules of this process


@pytest.mark.not_on_ray("Ray takes folders at the connection only, and says so")
def test_packages_and_files_of_py_modules_can_be_imported(tmp_path):
    (tmp_path / "told_by_package").mkdir()
    (tmp_path / "told_by_package" / "__init__.py").write_text("ANSWER = 1")
    (tmp_path / "told_by_file.py").write_text("ANSWER = 2")

    @shoal.remote(runtime_env={"py_modules": [str(tmp_path / "told_by_package"), str(tmp_path / "told_by_file.py")]})
    def work():
        return [importlib.import_module(name).ANSWER for name in ("told_by_package", "told_by_file")]

    assert shoal.get(work.remote()) == [1, 2]
    for name in ("told_by_package", "told_by_file"):
        sys.modules.pop(name, None)


@pytest.mark.not_on_ray("a Ray cluster installs what is asked for")
def test_what_is_not_supported_is_refused_at_the_call():
    with pytest.raises(ValueError, match=r"'pip'.*not supported"):
        variable.options(runtime_env={"pip": ["x"]}).remote("A")
    with pytest.raises(ValueError, match=r"'working_dir'.*URLs"):
        Reader.options(runtime_env={"working_dir": "s3://bucket/x.zip"}).remote()


def test_folders_that_are_not_there_are_refused_where_they_are_named():
    with pytest.raises(ValueError, match="does not exist"):
        Reader.options(runtime_env={"working_dir": "/no/such/folder"})


def test_a_concurrent_actor_has_its_environment_or_says_that_it_cannot(session):
    @shoal.remote
    class Concurrent:
        async def variable(self, name):
            return os.environ.get(name)

    create = Concurrent.options(**with_vars(SHOAL_T="x"))
    if session == "inline":
        with pytest.raises(ValueError, match="inline engine has one process"):
            create.remote()
    else:
        assert shoal.get(create.remote().variable.remote("SHOAL_T")) == "x"


@pytest.mark.native_only("changes the folder that workers have copied")
def test_what_is_changed_after_the_first_use_is_not_seen(tmp_path):
    (tmp_path / "data.txt").write_text("before")

    @shoal.remote(runtime_env={"working_dir": str(tmp_path)})
    def read():
        with open("data.txt") as file:
            return file.read(), os.path.realpath("data.txt")

    first = shoal.get(read.remote())
    (tmp_path / "data.txt").write_text("after")
    assert shoal.get(read.remote()) == first
    assert not first[1].startswith(str(tmp_path))


@pytest.mark.native_only("counts processes")
def test_workers_are_reused_within_an_environment_and_replaced_between_them():
    @shoal.remote
    def pid():
        return os.getpid()

    one, two = pid.options(**with_vars(SHOAL_T="one")), pid.options(**with_vars(SHOAL_T="two"))
    assert len({shoal.get(one.remote()) for _ in range(5)}) == 1
    for number in range(20):
        assert shoal.get(one.remote()) != shoal.get(two.remote())
        shoal.get(pid.options(**with_vars(SHOAL_T=str(number))).remote())
    workers = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("shoal-worker")]
    assert len(workers) < 15, "those of environments that nobody asks for any more have left"


@pytest.mark.native_only("breaks the start of a worker")
def test_an_environment_that_cannot_be_set_up_fails_what_asked_for_it(tmp_path):
    (tmp_path / "data.txt").write_text("")

    def break_it():
        engine = shoal.core.engines.current.running()
        environments = engine._process.environments
        wanted = shoal.core.environments.runtime_env.wanted({"working_dir": str(tmp_path)})
        copy = shoal.core.environments.resolved.Environment.decode(environments.resolve(wanted)).working_dir
        os.rename(copy, copy + "-gone")

    break_it()
    environment = {"runtime_env": {"working_dir": str(tmp_path)}}
    with pytest.raises(shoal.exceptions.RuntimeEnvSetupError, match=r"variable\(\) cannot run.*3 workers in a row"):
        shoal.get(variable.options(**environment).remote("X"), timeout=30)
    with pytest.raises(shoal.exceptions.ActorDiedError, match="could be started for it with its runtime_env"):
        shoal.get(Reader.options(**environment).remote().variable.remote("X"), timeout=30)
    assert shoal.get(variable.remote("SHOAL_NONE"), timeout=30) is None


@pytest.mark.parametrize("engine", ["native", "inline"])
@pytest.mark.native_only("starts sessions of its own")
def test_a_session_has_an_environment_that_tasks_add_to(engine, tmp_path):
    (tmp_path / "data.txt").write_text("hello")
    script = f"""
        import os, shoal
        shoal.init(num_cpus=1, engine={engine!r},
                   runtime_env={{"env_vars": {{"A": "job", "B": "job"}}, "working_dir": {str(tmp_path)!r}}})
        @shoal.remote(runtime_env={{"env_vars": {{"B": "task"}}}})
        def task():
            return os.environ["A"], os.environ["B"], open("data.txt").read()
        print(*shoal.get(task.remote()), os.environ.get("A"))
        print(shoal.get_runtime_context().runtime_env["env_vars"])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["job task hello None", "{'A': 'job', 'B': 'job'}"]

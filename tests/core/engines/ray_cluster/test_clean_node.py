"""A Ray node whose machine has Ray and libraries but no shoal: the driver brings it, or says what is missing."""

from __future__ import annotations

import json
import socket

import pytest

pytestmark = pytest.mark.ray

TASKS = """
import sys, os, shoal
here = os.path.realpath(shoal.__file__)
context = shoal.init(engine="ray", address=sys.argv[1], logging_level="warning", namespace="mine")

@shoal.remote
def where():
    import shoal.rllib.rollouts.env_runner
    return os.path.realpath(shoal.__file__), sys.prefix, shoal.get_runtime_context().namespace

@shoal.remote
class Counter:
    def __init__(self, refs):
        self.n = shoal.get(refs[0])

    def add(self, k):
        self.n += k
        return shoal.get(shoal.put(self.n)), os.path.realpath(shoal.__file__)

place, prefix, namespace = shoal.get(where.remote())
assert place.endswith("/shoal/__init__.py") and place != here, place
assert prefix != sys.prefix and namespace == "mine"
counter = Counter.remote([shoal.put(40)])
assert shoal.get(counter.add.remote(2)) == (42, place)
variable = shoal.remote(lambda: (os.environ["SHOAL_TEST"], os.path.realpath(shoal.__file__)))
assert shoal.get(variable.options(runtime_env={"env_vars": {"SHOAL_TEST": "1"}}).remote()) == ("1", place)
assert context.address_info["address"].partition(":")[2] == sys.argv[1].partition(":")[2]
try:
    shoal.init(engine="ray")
except RuntimeError as error:
    assert "twice" in str(error)
assert shoal.init(engine="ray", ignore_reinit_error=True).address_info == context.address_info
shoal.shutdown()
with shoal.init(engine="ray", address=sys.argv[1], logging_level="warning"):
    assert shoal.get(where.remote())[0] == place
print("done")
"""

ENVIRONMENT = """
import importlib, json, os, sys, shoal
os.makedirs("work"), os.makedirs("modules/told_by_package")
open("work/data.txt", "w").write("hello")
open("modules/told_by_package/__init__.py", "w").write("ANSWER = 42")
shoal.init(
    engine="ray", address=sys.argv[1], logging_level="warning",
    runtime_env={
        "working_dir": "work", "py_modules": ["modules/told_by_package"], "env_vars": {"SHOAL_MINE": "1"},
        "excludes": ["*.bin"], "config": {"setup_timeout_seconds": 60},
    },
)

@shoal.remote
def look():
    with open("data.txt") as file:
        return file.read(), importlib.import_module("told_by_package").ANSWER, os.environ["SHOAL_MINE"]

assert shoal.get(look.remote()) == ("hello", 42, "1")
told = shoal.get(shoal.remote(lambda: dict(shoal.get_runtime_context().runtime_env)).remote())
assert len(told["py_modules"]) == 1 and told["working_dir"].startswith("gcs://"), told
variable = shoal.remote(lambda: (os.environ["SHOAL_MINE"], os.environ["SHOAL_JOB"]))
assert shoal.get(variable.remote()) == ("1", "2")
try:
    look.options(runtime_env={"working_dir": "work"}).remote()
except ValueError as error:
    print(error)
shoal.shutdown()
# As a driver finds itself that was sent with `ray job submit --working-dir .`
os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": {"working_dir": told["working_dir"]}})
shoal.init(engine="ray", address=sys.argv[1], logging_level="warning")
assert shoal.get(shoal.remote(lambda: open("data.txt").read()).remote()) == "hello"
"""

PPO_THERE = """
import sys, shoal
from shoal.algorithms.ppo import PPO, PPOConfig

def steps(**session):
    shoal.init(**session)
    algorithm = PPO(PPOConfig(num_envs=4, rollout_steps=16, num_epochs=2, minibatch_size=32, hidden_sizes=(8,)))
    try:
        rows = [algorithm.step() for _ in range(2)]
    finally:
        algorithm.close()
        shoal.shutdown()
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]

there, here = steps(engine="ray", address=sys.argv[1], logging_level="warning"), steps(engine="inline")
assert repr(there) == repr(here), (there, here)
print("done")
"""

GONE = """
import shoal
for address in (None, "auto"):
    try:
        shoal.init(engine="ray", address=address)
    except ConnectionError as error:
        print(error)
"""

MISSING = """
import sys, shoal
from shoal.core.engines.ray_cluster import libraries
libraries.CORE["no_such_library"] = "no-such-library>=1"
try:
    shoal.init(engine="ray", address=sys.argv[1], logging_level="warning")
except shoal.exceptions.EngineUnavailableError as error:
    print(error)
assert not shoal.is_initialized()
del libraries.CORE["no_such_library"]
shoal.init(engine="ray", address=sys.argv[1], logging_level="warning")
"""

OTHER_VERSION = """
import sys, ray, shoal
ray.__version__, true = "2.59.0", ray.__version__
try:
    shoal.init(engine="ray", address=sys.argv[1], logging_level="warning")
except shoal.exceptions.EngineUnavailableError as error:
    print(error)
ray.__version__ = true
with shoal.init(engine="ray", address=sys.argv[1], logging_level="warning"):
    print("connected")
"""

CONNECTED_BEFORE = """
import os, sys, ray, shoal
ray.util.client.ray.is_connected = lambda: True
try:
    shoal.init(engine="ray")
except ValueError as error:
    print(error)
del ray.util.client.ray.is_connected
ray.init(sys.argv[1], logging_level="warning")
try:
    shoal.init(engine="ray")
except shoal.exceptions.EngineUnavailableError as error:
    print(error)
ray.shutdown()
ray.init(sys.argv[1], logging_level="warning", runtime_env={"py_modules": [os.path.join(sys.argv[2], "shoal")]})
info = shoal.init(engine="ray").address_info
assert os.path.isdir(info["session_dir"]) and info["address"] == ray.get_runtime_context().gcs_address, info
print(shoal.get(shoal.remote(lambda: "worked").remote()))
shoal.shutdown()
print("still connected" if ray.is_initialized() else "disconnected")
ray.shutdown()
shoal.init(engine="ray", address=sys.argv[1], logging_level="warning")
child = os.fork()
if child == 0:
    try:
        shoal.init(engine="ray", address=sys.argv[1])
    except shoal.exceptions.EngineUnavailableError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(shoal.get(shoal.remote(lambda: "and after a fork").remote()))
"""


def test_tasks_and_actors_run_by_the_shoal_that_the_driver_brings(clean_node, driver):
    ran = driver(TASKS, clean_node)
    assert ran.stdout == "done\n", ran.stderr


def test_the_connections_environment_is_that_of_the_job_and_of_init_and_shoal(clean_node, driver):
    job = {"runtime_env": {"env_vars": {"SHOAL_JOB": "2"}}, "metadata": {"job_name": "x"}}  # as `ray job submit` has it
    ran = driver(ENVIRONMENT, clean_node, RAY_JOB_CONFIG_JSON_ENV_VAR=json.dumps(job))
    assert "Ray sends folders to its machines at the connection only" in ran.stdout, ran.stderr
    assert ran.returncode == 0, ran.stderr


def test_an_iteration_of_ppo_there_is_that_of_this_machine_to_the_last_bit(clean_node, driver):
    ran = driver(PPO_THERE, clean_node)
    assert ran.stdout == "done\n", ran.stderr


def test_a_cluster_that_has_gone_and_left_its_note_is_told_with_what_forgets_it(driver, tmp_path):
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"127.0.0.1:{listener.getsockname()[1]}"
    (tmp_path / "ray" / "ray_current_cluster").write_text(gone)
    ran = driver(GONE, RAY_TMPDIR=str(tmp_path))
    assert ran.stdout.count("\n") == 2, ran.stderr
    for line in ran.stdout.splitlines():
        assert f"no Ray cluster answers at {gone} (Connection refused)" in line
        assert line.endswith("`ray stop` forgets it, and address='local' starts a Ray of your own")


def test_a_library_that_is_missing_there_is_named_with_what_to_do(clean_node, driver):
    ran = driver(MISSING, clean_node)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("\n") == 1
    assert "have no no_such_library, which shoal needs there" in ran.stdout
    assert "init(engine='ray', runtime_env={'pip': ['no-such-library>=1']})" in ran.stdout


def test_another_version_of_ray_is_told_in_a_line_and_leaves_no_half_connection(clean_node, driver):
    ran = driver(OTHER_VERSION, clean_node)
    told, connected = ran.stdout.splitlines()
    assert f"the Ray cluster at {clean_node} has Ray 2." in told
    assert "this process Ray 2.59.0" in told
    assert "pip install 'ray==2." in told
    assert connected == "connected"


def test_a_connection_of_the_programs_own_is_used_if_shoal_is_there_and_left_as_it_is(clean_node, driver, tmp_path):
    ran = driver(CONNECTED_BEFORE, clean_node, str(tmp_path / "path"))
    client, missing, *others = ran.stdout.splitlines()
    assert "connected by Ray Client (ray://)" in client
    assert "shoal 0.1.0 is not on the workers of the Ray cluster (No module named 'shoal')" in missing, ran.stderr
    assert "leave ray.init() to shoal.init(engine='ray', ...)" in missing
    assert others[:2] == ["worked", "still connected"], ran.stderr
    assert "forked from one that is connected to Ray" in others[2]
    assert others[3:] == ["and after a fork"]

"""`init` and `shutdown` as Ray programs use them."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import uuid

import pytest

import shoal
from shoal.exceptions import RaySystemError
from shoal.job_config import JobConfig


@pytest.fixture(autouse=True)
def _no_session():
    shoal.shutdown()
    yield
    shoal.shutdown()


def start(**options):
    return shoal.init(**{"engine": "inline", "num_cpus": 1, **options})


def test_init_returns_where_the_session_is_and_ends_it():
    with shoal.init(num_cpus=1) as context:
        assert context.address_info["node_id"] == shoal.nodes()[0]["NodeID"]
        assert os.path.isdir(context.address_info["session_dir"])
        assert context.ray_version == "2.60.0"
        assert context.dashboard_url == ""
        assert "RayContext(" in repr(context)
        with pytest.warns(DeprecationWarning, match="address_info"):
            assert context["node_ip_address"] == "127.0.0.1"
        assert set(context) == set(context.address_info)
        assert len(context) == len(context.address_info)
    assert not shoal.is_initialized()
    context.disconnect()  # twice is once


def test_a_second_init_is_told_in_rays_words_or_ignored():
    context = start()
    with pytest.raises(RuntimeError, match=r"^Maybe you called ray\.init twice by accident\?"):
        start()
    assert dict(start(ignore_reinit_error=True).address_info) == context.address_info


def test_arguments_of_ray_programs_are_accepted():
    start(
        address="local", include_dashboard=True, dashboard_host="0.0.0.0", dashboard_port=8265, configure_logging=True,
        logging_level=logging.ERROR, logging_format="%(message)s", log_to_driver=False, object_store_memory=10**8,
        labels={"zone": "a"}, _temp_dir="/somewhere", _system_config={"a": 1},
    )  # fmt: skip
    assert shoal.is_initialized()
    assert logging.getLogger("shoal").level == logging.ERROR


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"address": "auto"}, ConnectionError),
        ({"address": "10.0.0.1:6379"}, RuntimeError),
        ({"local_mode": True}, RuntimeError),
        ({"num_cpu": 2}, RuntimeError),
        ({"namespace": ""}, ValueError),
        ({"namespace": 3}, TypeError),
        ({"job_config": 3}, TypeError),
        ({"labels": {"a": 1}}, TypeError),
        ({"num_cpus": -1}, ValueError),
        ({"logging_level": "loud"}, ValueError),
        ({"engine": "steam"}, ValueError),
    ],
)
def test_wrong_arguments_start_nothing(options, error):
    with pytest.raises(error):
        start(**options)
    assert not shoal.is_initialized()


def test_the_environment_may_name_the_address(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(RuntimeError, match=r"10\.0\.0\.1:6379.*RAY_ADDRESS unset"):
        start()
    start(address="local")


def test_the_namespace_is_the_given_one_the_jobs_or_one_of_its_own():
    start(namespace="mine", job_config=JobConfig(ray_namespace="the job's"))
    assert shoal.get_runtime_context().namespace == "mine"
    shoal.shutdown()
    start(job_config=JobConfig(ray_namespace="the job's"))
    assert shoal.get_runtime_context().namespace == "the job's"
    shoal.shutdown()
    start()
    assert uuid.UUID(shoal.get_runtime_context().namespace)


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_tasks_live_in_the_namespace_of_their_driver(engine):
    start(engine=engine, namespace="mine")

    @shoal.remote(num_cpus=0)
    class Named:
        def where(self):
            return shoal.get_runtime_context().namespace

    @shoal.remote
    def ask():
        return shoal.get(shoal.get_actor("one").where.remote(), timeout=20)

    kept = Named.options(name="one").remote()
    assert shoal.get(ask.remote(), timeout=30) == "mine"
    assert kept == shoal.get_actor("one", namespace="mine")


def test_a_call_starts_a_session_unless_that_is_forbidden(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    with pytest.raises(RaySystemError, match=r"Ray has not been started yet"):
        shoal.put(1)
    monkeypatch.delenv("RAY_ENABLE_AUTO_CONNECT")
    assert shoal.get(shoal.put(1)) == 1


@pytest.mark.parametrize("verb", [shoal.nodes, shoal.cluster_resources, shoal.available_resources])
def test_looking_does_not_start_a_session(verb):
    with pytest.raises(RaySystemError, match="has not been started yet"):
        verb()
    shoal.shutdown()
    assert not shoal.is_initialized()


def test_the_limit_of_open_files_is_raised():
    code = """
import resource, shoal
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
shoal.init(engine="inline")
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(ran.stdout) == min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)


def test_sigterm_ends_the_session_in_order():
    code = """
import atexit, shoal, sys, time
shoal.init(num_cpus=1)
@shoal.remote
def forever():
    time.sleep(1000)
try:
    print(shoal.get_runtime_context().get_node_id(), flush=True)
    shoal.get(forever.remote())
finally:
    print("finally", flush=True)
"""
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        assert program.stdout.readline()
        program.send_signal(signal.SIGTERM)
        rest, _ = program.communicate(timeout=20)
    finally:
        program.kill()
    assert (program.returncode, rest) == (signal.SIGTERM, "finally\n")


def test_a_handler_of_the_program_stays():
    def own(_number, _frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, own)
    try:
        start()
        shoal.shutdown()
        assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        start()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        shoal.shutdown()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_logging_of_workers_follows_the_config():
    code = """
import logging, shoal
shoal.init(num_cpus=1, logging_config=shoal.LoggingConfig(encoding="JSON", log_level="INFO"))
@shoal.remote
def work():
    logging.getLogger("mine").info("from the worker")
shoal.get(work.remote())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert '"message": "from the worker"' in ran.stderr + ran.stdout


def test_a_small_store_has_room_for_small_objects_of_many_processes():
    @shoal.remote(num_cpus=0)
    class Putter:
        def put(self):
            return [shoal.put(b"x" * 200_000)]

    with shoal.init(num_cpus=2, object_store_memory=64 * 1024 * 1024):
        putters = [Putter.remote() for _ in range(8)]
        refs = [ref for (ref,) in shoal.get([putter.put.remote() for putter in putters], timeout=60)]
        assert [len(value) for value in shoal.get(refs, timeout=60)] == [200_000] * 8
